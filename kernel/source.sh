#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Where kernel/build, kernel/fix-up and kernel/releases have the kernel's source from, and how the series is applied to
# it. They read this file.
# shellcheck disable=SC2034 # whoever reads this file reads the variables

readonly PACKAGE=linux-source-6.12
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
readonly CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/mptcp-pm/kernel
# Beside what apt is configured for: where Debian has its other point releases, and newer kernels.
readonly SUITES=(trixie trixie-backports forky sid)
readonly SECURITY_SUITES=(bookworm-security trixie-security)

shopt -s nullglob

say() { printf '%s\n' "$*" >&2; }
die() { say "kernel/$(basename "$0"): $*"; exit 1; }

as_root() { if [[ $(id -u) -eq 0 ]]; then "$@"; else sudo "$@"; fi; }

# install_missing PACKAGE...
install_missing() {
	local package missing=()
	for package in "$@"; do
		dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
	done
	[[ ${#missing[@]} -eq 0 ]] && return
	say "installing ${missing[*]}"
	{
		as_root apt-get update -q &&
			as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
	} >&2 || die "cannot install ${missing[*]} ($PACKAGE is among the security updates of Debian 12)"
}

# A configuration of our own, which leaves the machine's as it is.
private_apt() { # apt-get|apt-cache ARGUMENT...
	local command=$1
	shift
	"$command" -q -o Dir::Etc::SourceList="$CACHE/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null -o Dir::State::Lists="$CACHE/apt/lists" \
		-o Dir::Cache="$CACHE/apt" -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none "$@"
}

private_apt_cache() { private_apt apt-cache "$@"; }

source_packages() { # of an apt-cache: PACKAGE VERSION
	local name
	"$@" pkgnames linux-source- | grep -E '^linux-source-[0-9.]+$' | while read -r name; do
		"$@" madison "$name"
	done | awk '$NF == "Packages" && $3 !~ /~rc/ { print $1, $3 }'
}

# The packages that this machine's apt offers, and then those of the other suites of the same archives.
offered() {
	local main security
	if [[ -z $(find "$CACHE/apt/offered" -mmin -1440 2>/dev/null) ]]; then
		mkdir -p "$CACHE/apt/lists/partial"
		archive() { apt-get indextargets --format "\$(LABEL) \$(REPO_URI)" 'Created-By: Packages' | sed -n "s/^$1 //p" | sed q; }
		main=$(archive Debian) security=$(archive Debian-Security)
		[[ -n $main && -n $security ]] ||
			die "apt-get indextargets names no archive of Debian and its security updates; run apt-get update"
		{
			printf "deb $main %s main\n" "${SUITES[@]}"
			printf "deb $security %s main\n" "${SECURITY_SUITES[@]}"
		} >"$CACHE/apt/sources.list"
		say 'asking which kernels Debian packages'
		private_apt apt-get update >&2 || die "cannot read the lists of packages of $main and $security"
		{
			source_packages apt-cache | sort -k 2,2Vr
			source_packages private_apt_cache | sort -k 2,2Vr
		} | awk '!seen[$0]++' >"$CACHE/apt/offered.new"
		mv "$CACHE/apt/offered.new" "$CACHE/apt/offered"
	fi
	cat "$CACHE/apt/offered"
}

# Sets package, version and stamp (the name in the cache) of a tree, and source: its tarball, empty if there is none yet.
# A tree is a release (6.12.117), a source package, PACKAGE=VERSION, or the empty string: the package that is installed.
find_source() { # TREE OFFLINE
	local tree=$1 offline=$2 installed kept
	installed=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$PACKAGE" 2>/dev/null | sed -n 's/^installed //p')
	case $tree in
	'') package=$PACKAGE version=$installed ;;
	"$PACKAGE=$installed") package=$PACKAGE version=$installed ;;
	linux-source-*=*) package=${tree%%=*} version=${tree#*=} ;;
	linux-source-*) package=$tree version=$(offered | awk -v package="$tree" '$1 == package { print $2; exit }') ;;
	[0-9]*)
		package='' version=''
		kept=$(find "$CACHE" -maxdepth 1 -regex ".*/\(source\|files\)-linux-source-[0-9.]*_$tree-[^/]*" -printf '%f\n' |
			sed 's/^[a-z]*-//' | sort | sed q)
		if [[ ${installed%%-*} == "$tree" ]]; then
			package=$PACKAGE version=$installed
		elif [[ -n $kept ]]; then
			package=${kept%_*} version=${kept#*_}
		elif [[ -z $offline ]]; then
			read -r package version < <(offered | awk -v tree="$tree" 'index($2, tree "-") == 1 { print; exit }') || true
		fi ;;
	*) die "--tree takes a release (6.12.117), a package (linux-source-7.3), or PACKAGE=VERSION, not $tree" ;;
	esac
	[[ -n $version ]] || die "Debian does not offer $tree${offline:+, or its source is not kept}"
	source='' stamp=${package}_$version
	[[ $version != "$installed" ]] || source=/usr/src/$package.tar.xz
	# By size and date, so that 140 MB need not be read each time.
	[[ -z $source ]] || stamp=$(stat -c '%s-%Y' "$source")
}

# The tarball on standard output.
read_source() {
	local directory
	if [[ -n $source ]]; then
		xz --decompress --stdout --force "$source"
		return
	fi
	directory=$(mktemp -d "$CACHE/download.XXXXXX")
	say "downloading $package $version"
	offered >/dev/null
	if ! (cd "$directory" && private_apt apt-get download "$package=$version" >&2); then
		rm -rf "$directory"
		say "kernel/$(basename "$0"): Debian does not offer $package $version any more"
		return 1
	fi
	dpkg-deb --fsys-tarfile "$directory"/*.deb | tar --extract --to-stdout --wildcards './usr/src/*.tar.xz' |
		xz --decompress --stdout
	rm -rf "$directory"
}

# Unpacks the whole tree; needs the lock.
unpack() {
	pristine=$CACHE/source-$stamp
	[[ ! -e $pristine/.unpacked ]] || return 0
	say "unpacking ${source:-$package $version}"
	rm -rf "$pristine"
	mkdir -p "$pristine"
	read_source | tar --extract --directory "$pristine" --strip-components 1 ||
		{ rm -rf "$pristine"; die "no source of Linux"; }
	touch "$pristine/.unpacked"
}

files_kept() {
	[[ -e $CACHE/source-$stamp/.unpacked ]] || [[ -e $CACHE/files-$stamp/.wanted &&
		-z $(comm -13 "$CACHE/files-$stamp/.wanted" <(wanted_files)) ]]
}

# Those outside net/mptcp that the series and its fix-ups touch.
wanted_files() { touched "$HERE"/patches/[0-9]*.patch "$HERE"/patches/*/*.patch | sed '/^net\/mptcp\//d'; }

# Sets pristine to the tree where it is unpacked, and otherwise to a directory with only the files that the series touches,
# and those of MPTCP: other releases have the same code in others.
touched_files() { # OFFLINE: nothing is fetched unless it is empty
	pristine=$CACHE/source-$stamp
	[[ ! -e $pristine/.unpacked ]] || return 0
	pristine=$CACHE/files-$stamp
	! files_kept || return 0
	[[ -z $1 ]] || die "the source of ${package:-Linux} ${version:-} is not kept"
	rm -rf "$pristine"
	mkdir -p "$pristine"
	# tar complains of files that only other releases have, or that the series creates.
	read_source | tar --extract --directory "$pristine" --strip-components 1 --wildcards --no-wildcards-match-slash \
		--files-from <({ printf '%s\n' Makefile 'net/mptcp/*'; wanted_files; } | sed 's,^,linux*/,') 2>"$pristine/.errors" || true
	[[ -e $pristine/Makefile ]] || { cat "$pristine/.errors" >&2; rm -rf "$pristine"; die "no source of Linux"; }
	wanted_files >"$pristine/.wanted"
}

release_of() { # DIRECTORY
	awk -F ' *= *' '$1 ~ /^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)$/ { part[$1] = $2 }
		END { print part["VERSION"] "." part["PATCHLEVEL"] "." part["SUBLEVEL"] part["EXTRAVERSION"] }' "$1/Makefile"
}

# The patches of the series, without the cover letter.
series() {
	local patch
	for patch in "$HERE"/patches/[0-9]*.patch; do
		[[ $patch == */0000-* ]] || echo "$patch"
	done
}

touched() { # PATCH...: the files, sorted
	sed -n 's,^\(---\|+++\) [ab]/\([^\t]*\).*,\2,p' "$@" | sort -u
}

# The fix-up of a patch for a release: that of the nearest folder that has one and is not newer; or nothing.
fix_up() { # PATCH RELEASE
	local folder found=''
	while read -r folder; do
		[[ ! -e $HERE/patches/$folder/$(basename "$1") ]] || found=$HERE/patches/$folder/$(basename "$1")
		[[ $folder != "$2" ]] || break
	done < <(printf '%s\n' "$2" "$(cd "$HERE/patches" && find . -mindepth 1 -maxdepth 1 -type d -printf '%f\n')" |
		sed '/^$/d' | sort -Vu | sed "/^${2//./\\.}\$/q")
	echo "$found"
}

# What a patch is for a release, for digests: the patch, and its fix-up if there is one.
contents() { # RELEASE PATCH...
	local release=$1 patch fix
	shift
	for patch in "$@"; do
		cat "$patch"
		fix=$(fix_up "$patch" "$release")
		[[ -z $fix ]] || cat "$fix"
	done
}

# Identifies rejected hunks by their content, wherever they belong.
digest_of_rejects() { # FILE
	sed '/^@@ /d' "$1" | sha256sum | cut -c1-16
}

# Copies the files that the patches and their fix-ups touch.
stage_files() { # PRISTINE STAGE RELEASE PATCH...
	local pristine=$1 stage=$2 release=$3 file
	shift 3
	contents "$release" "$@" >"$stage/.contents"
	touched "$stage/.contents" >"$stage/.files"
	while read -r file; do
		[[ -e $pristine/$file ]] || continue
		mkdir -p "$stage/$(dirname "$file")"
		cp -p "$pristine/$file" "$stage/$file"
	done <"$stage/.files"
}

# Applies a patch to the directory. Where it rejects hunks, the fix-up for the release replaces these and no others: its
# line "Replaces:" has their digest. Sets outcome to a sentence. Fails if the patch does not apply and has no fix-up that
# does: the hunks that were not rejected are applied then. The rejects are left in DIRECTORY/.rejects.
apply_patch() { # DIRECTORY PATCH RELEASE
	local directory=$1 patch=$2 release=$3 fix of file absent=() rejected
	local options=(--directory="$directory" --strip=1 --forward --batch --silent --no-backup-if-mismatch)
	# Hunks of a file that is not there are rejected too, instead of ignored.
	while read -r file; do
		[[ ! -e $directory/$file ]] || continue
		grep -qxF -- "--- a/$file" "$patch" || continue
		mkdir -p "$directory/$(dirname "$file")"
		: >"$directory/$file"
		absent+=("$directory/$file")
	done < <(touched "$patch")
	rm -f "$directory/.rejects"
	outcome=applies
	patch "${options[@]}" --reject-file=.rejects <"$patch" >"$directory/.log" 2>&1 && return
	outcome='does not apply'
	if [[ -e $directory/.rejects ]]; then
		rejected=$(sed -n 's/^--- \([^\t]*\).*/\1/p' "$directory/.rejects" | paste -sd ' ')
		outcome+=" (rejected hunks: $(grep -c '^@@ ' "$directory/.rejects"), of $rejected)"
	fi
	[[ ${#absent[@]} -eq 0 ]] || find "${absent[@]}" -empty -delete
	fix=$(fix_up "$patch" "$release")
	[[ -n $fix ]] || return 1
	of=$(basename "$(dirname "$fix")")
	if [[ $(sed -n 's/^Replaces: //p' "$fix") != "$(digest_of_rejects "$directory/.rejects")" ]]; then
		outcome+=", and the fix-up of $of is for other ones"
		return 1
	fi
	options+=(--fuzz=0)
	if ! patch "${options[@]}" --dry-run <"$fix" >>"$directory/.log" 2>&1; then
		outcome+=", nor does the fix-up of $of"
		return 1
	fi
	patch "${options[@]}" <"$fix" >>"$directory/.log" 2>&1
	outcome="applies with the fix-up of $of"
}

# Release and PACKAGE=VERSION of the tree that was tested last, of those of the package to which the series applied.
tested_last() { # PACKAGE
	awk -F '\t' -v package="$1" '
		$2 == package && $4 == "applies" && $5 ~ /^yes/ { applies[$1] }
		$2 == package && $4 ~ /^tests\// { date[$1] = date[$1] > $7 ? date[$1] : $7; exact[$1] = $2 "=" $3 }
		END { for (release in exact) if (release in applies) print date[release], release, exact[release] }
	' "$HERE/releases.tsv" | sort -k 1,1 -k 2,2V | tail -n 1 | cut -d ' ' -f 2-
}
