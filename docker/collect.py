# SPDX-License-Identifier: Apache-2.0
"""The files of the image: ``collect.py [--compiler] PYTHON OUT``, run in the Dockerfile's build stage.

PYTHON has the installed Python packages. OUT becomes a root directory with them, Debian's interpreter and all
libraries that these need, and for each Debian package that has a file in it the record by which scanners
know it. ``--compiler`` adds BCC. Equal inputs give equal files, times included (SOURCE_DATE_EPOCH).
"""

from __future__ import annotations

import argparse
import compileall
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

STDLIB = Path(sysconfig.get_path("stdlib"))
VERSION = f"python{sysconfig.get_python_version()}"
SITE = Path("usr/local/lib", VERSION, "dist-packages")
SBOM = Path("usr/share/mptcp-pm/sbom.spdx.json")
# Parts of the standard library that nothing here imports, and modules that want libraries of their own.
UNUSED = [
    *("__pycache__", "config-*", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data"),
    *("test", "tests", "tkinter", "turtle.py", "turtledemo"),
    *("_codecs_*.so", "_curses*.so", "_dbm*.so", "_test*.so", "_ctypes_test*.so", "_xx*.so"),
    *("nis*.so", "ossaudiodev*.so", "readline*.so"),
]
# What only `rich` wants, for source code and Markdown; of what is compiled, its sources and types.
UNUSED_IN_PACKAGES = [
    *("__pycache__", "pygments*", "markdown_it*", "mdurl*"),
    *("*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.cpp"),
]
COMPILER = ("python3-bpfcc", "libbpfcc")

# The kernel keeps signals from PID 1 as long as it has no handler for them, and the imports take a while.
MAIN = f"""#!/usr/bin/{VERSION} -P
import os, sys, _signal

if os.getpid() == 1:
    _signal.signal(_signal.SIGTERM, lambda *_: os._exit(0))

from pm.cli.main import main

sys.exit(main())
"""
USERS = {
    "etc/passwd": "root:x:0:0:root:/:/nonexistent\nnobody:x:65534:65534:nobody:/:/nonexistent\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}


def collect(python: Path, out: Path, *, compiler: bool) -> None:
    """Fill ``out``, which must not exist."""
    make_root(out)
    copy_python(python, out)
    if compiler:
        for package in COMPILER:
            copy_package(package, out)
    copy(Path("/usr/lib", sysconfig.get_config_var("MULTIARCH"), "libbpf.so.1"), out)
    copy_libraries(out)
    subprocess.run(["ldconfig", "-r", out], check=True)
    shutil.rmtree(out / "var/cache", ignore_errors=True)
    (out / "etc/ld.so.conf").unlink()
    packages = owners(out)
    record_packages(packages, out)
    write_sbom(packages, list(distributions(path=[str(out / SITE)])), out)
    compile_bytecode(out)
    set_times(out, int(os.environ.get("SOURCE_DATE_EPOCH", "0")))


def make_root(out: Path) -> None:
    """The directories, and Debian's links between them."""
    for directory in (
        "usr/bin",
        "usr/lib",
        "usr/local/bin",
        "etc/mptcp-pm",
        "run/mptcp-pm",
        "tmp",
        "proc",
        "sys",
    ):
        (out / directory).mkdir(parents=True)
    (out / "tmp").chmod(0o1777)
    for name in ("bin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            (out / name).symlink_to(f"usr/{name}")
            (out / "usr" / name).mkdir(exist_ok=True)
    for name, text in USERS.items():
        (out / name).write_text(text)
    (out / "etc/ld.so.conf").write_text(f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}\n")


def copy_python(python: Path, out: Path) -> None:
    """The interpreter, the standard library, the packages and the command."""
    copy(Path("/usr/bin", VERSION), out)
    (out / "usr/bin/python3").symlink_to(VERSION)
    ignore = shutil.ignore_patterns(*UNUSED)
    shutil.copytree(
        STDLIB, out / STDLIB.relative_to("/"), symlinks=False, ignore=ignore, ignore_dangling_symlinks=True
    )
    shutil.copytree(python, out / SITE, ignore=shutil.ignore_patterns(*UNUSED_IN_PACKAGES))
    shutil.rmtree(out / SITE / "bin")
    for module in (out / SITE).rglob("*.so"):
        subprocess.run(["strip", "--strip-unneeded", module], check=True)
    command = out / "usr/local/bin/mptcp-pm"
    command.write_text(MAIN)
    command.chmod(0o755)
    target = out / "usr/local/lib/mptcp-pm"
    target.mkdir()
    shutil.copy(Path(__file__).with_name("healthcheck.py"), target)


def copy(file: Path, out: Path) -> Path:
    """A file at its own place, its content where it is a symbolic link."""
    target = out / file.parent.resolve().relative_to("/") / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(file, target)
    return target


def copy_package(package: str, out: Path) -> None:
    """A Debian package's files, without documentation."""
    for name in output("dpkg-query", "--listfiles", package).split("\n"):
        file = Path(name)
        # `ldconfig` makes the libraries' links.
        if file.is_file() and not file.is_symlink() and not name.startswith("/usr/share/"):
            copy(file, out)


def copy_libraries(out: Path) -> None:
    """What the dynamic linker loads for the programs and libraries that are there."""
    objects = [file for file in files(out) if is_elf(file)]
    listed = subprocess.run(["ldd", *objects], capture_output=True, text=True).stdout
    if missing := sorted(set(re.findall(r"(\S+) => not found", listed))):
        sys.exit(f"missing libraries: {', '.join(missing)}")
    for name in sorted(set(re.findall(r"(?:=> |^\t)(/\S+) \(", listed, re.MULTILINE))):
        copy(Path(name), out)


def is_elf(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def files(out: Path) -> Iterator[Path]:
    return (file for file in sorted(out.rglob("*")) if file.is_file() and not file.is_symlink())


def owners(out: Path) -> list[str]:
    """The Debian packages whose files are there."""
    packages: dict[str, str] = {}
    for listing in Path("/var/lib/dpkg/info").glob("*.list"):
        for name in listing.read_text().splitlines():
            packages[usr_merged(name)] = listing.stem
    copied = (f"/{file.relative_to(out)}" for file in files(out))
    found = {packages[name] for name in copied if name in packages}
    for file in files(out):  # a copied link has the name of a link and the content of its package's file
        place = Path("/", file.relative_to(out))
        if place.is_symlink() and (real := usr_merged(str(place.resolve()))) in packages:
            found.add(packages[real])
    return sorted(found)


def usr_merged(name: str) -> str:
    return re.sub(r"^/(bin|lib|lib64|sbin)/", r"/usr/\1/", name)


def record_packages(packages: list[str], out: Path) -> None:
    """For scanners, as in images without dpkg: a record in status.d; and each package's copyright."""
    status = out / "var/lib/dpkg/status.d"
    status.mkdir(parents=True)
    for package in packages:
        name = package.partition(":")[0]
        (status / name).write_text(output("dpkg-query", "--status", package))
        target = out / "usr/share/doc" / name
        target.mkdir(parents=True)
        shutil.copy(copyright_of(package), target)


def copyright_of(package: str) -> Path:
    """The package's own file, or that of one from the same source, to which it is a link in Debian."""
    source = output("dpkg-query", "--show", "--showformat=${source:Package}", package)
    listed = output("dpkg-query", "--show", "--showformat=${source:Package} ${Package}\n")
    same = [line.split()[1] for line in sorted(listed.splitlines()) if line.split()[0] == source]
    candidates = [Path("/usr/share/doc", name, "copyright") for name in (package.partition(":")[0], *same)]
    return next(file for file in candidates if file.exists())


def write_sbom(packages: list[str], python_packages: list[Distribution], out: Path) -> None:
    """What the image consists of, in SPDX 2.3."""
    entries = [*map(debian_entry, packages), *map(python_entry, python_packages), *npm_entries(out)]
    entries.sort(key=lambda entry: entry["SPDXID"])
    for entry in entries:
        entry |= {"downloadLocation": "NOASSERTION", "filesAnalyzed": False, "copyrightText": "NOASSERTION"}
    digest = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
    created = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", "0")))
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "mptcp-pm",
        "documentNamespace": f"urn:mptcp-pm:sbom:{digest}",
        "creationInfo": {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", created),
            "creators": ["Tool: docker/collect.py"],
        },
        "packages": entries,
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": entry["SPDXID"],
            }
            for entry in entries
        ],
    }
    (out / SBOM).parent.mkdir(parents=True)
    (out / SBOM).write_text(json.dumps(document, indent=1) + "\n")


def debian_entry(package: str) -> dict[str, Any]:
    fields = "${Package}\t${Version}\t${Architecture}\t${source:Package}"
    name, version, architecture, source = output(
        "dpkg-query", "--show", f"--showformat={fields}", package
    ).split("\t")
    return {
        "SPDXID": spdx_id("deb", name),
        "name": name,
        "versionInfo": version,
        "supplier": "Organization: Debian",
        "sourceInfo": f"built from the source package {source}",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",  # its copyright file is in /usr/share/doc
        "externalRefs": [purl(f"pkg:deb/debian/{name}@{version}?arch={architecture}&distro=debian-12")],
    }


def python_entry(package: Distribution) -> dict[str, Any]:
    name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
    expression = package.metadata.get("License-Expression")
    return {
        "SPDXID": spdx_id("pypi", name),
        "name": name,
        "versionInfo": package.version,
        "supplier": "NOASSERTION",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": expression or "NOASSERTION",
        "externalRefs": [purl(f"pkg:pypi/{name}@{package.version}")],
    }


def npm_entries(out: Path) -> list[dict[str, Any]]:
    """The libraries of the page; their licences are beside them."""
    lock = json.loads((out / SITE / "pm/web/vendor/package-lock.json").read_text())
    libraries = {
        place.rpartition("node_modules/")[2]: entry for place, entry in lock["packages"].items() if place
    }
    return [
        {
            "SPDXID": spdx_id("npm", name),
            "name": name,
            "versionInfo": entry["version"],
            "supplier": "NOASSERTION",
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": entry.get("license", "NOASSERTION"),
            "externalRefs": [purl(f"pkg:npm/{name}@{entry['version']}")],
        }
        for name, entry in libraries.items()
    ]


def spdx_id(kind: str, name: str) -> str:
    return f"SPDXRef-{kind}-{re.sub('[^A-Za-z0-9.-]', '-', name)}"


def purl(locator: str) -> dict[str, str]:
    return {
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": locator.replace("+", "%2B"),
    }


def compile_bytecode(out: Path) -> None:
    """Beside the sources, by whose content it is known to be theirs."""
    for directory in (STDLIB.relative_to("/"), SITE):
        compileall.compile_dir(
            out / directory,
            stripdir=str(out),
            prependdir="/",
            quiet=1,
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        )


def set_times(out: Path, epoch: int) -> None:
    for path in (out, *out.rglob("*")):
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiler", action="store_true")
    parser.add_argument("python", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    collect(options.python.resolve(), options.out, compiler=options.compiler)
