# SPDX-License-Identifier: Apache-2.0
"""How the series is applied to a release: fix-ups, what the error says, and the fallback.

The sources and the series here are small ones of the tests' own, with the project's scripts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.kernel.releases import KERNEL

FILE = "net/mptcp/example.c"
LINES = [f"line {n}" for n in range(1, 41)]
PACKAGE = "linux-source-6.12"


def changed(lines: list[str], **replaced: str) -> list[str]:
    """Lines that start with one of the numbers, replaced."""
    return [replaced.get(line.replace(" ", ""), line) for line in lines]


def patch(directory: Path, before: list[str], after: list[str], name: str = FILE) -> str:
    """What diff(1) says."""
    (directory / "before").write_text("\n".join([*before, ""]))
    (directory / "after").write_text("\n".join([*after, ""]))
    labels = ("--label", f"a/{name}", "--label", f"b/{name}")
    return subprocess.run(
        ["diff", "-u", *labels, "before", "after"], cwd=directory, capture_output=True, text=True
    ).stdout


class Series:
    """A copy of kernel/ with two patches of FILE, and a cache."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kernel = directory / "kernel"
        self.cache = directory / "cache/mptcp-pm/kernel"
        self.cache.mkdir(parents=True)
        (self.kernel / "patches").mkdir(parents=True)
        for name in ("build", "fix-up", "source.sh"):
            shutil.copy(KERNEL / name, self.kernel)
        shutil.copytree(KERNEL / "config", self.kernel / "config")
        (self.kernel / "patches/BASE").write_text("6.12.5\n")
        self.table("")
        first = changed(LINES, line5="line 5 of the first", line35="line 35 of the first")
        self.write("0001-first.patch", patch(directory, LINES, first))
        self.write(
            "0002-second.patch", patch(directory, first, changed(first, line20="line 20 of the second"))
        )

    def write(self, name: str, text: str) -> None:
        path = self.kernel / "patches" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def table(self, *lines: str) -> None:
        (self.kernel / "releases.tsv").write_text("".join(line + "\n" for line in ("release", *lines)))

    def source(self, release: str, lines: list[str]) -> None:
        """A tree of that release, with FILE, as Debian's source package that is kept in the cache."""
        tree = self.cache / f"source-{PACKAGE}_{release}-1"
        (tree / FILE).parent.mkdir(parents=True)
        (tree / FILE).write_text("\n".join([*lines, ""]))
        version, level, sub = release.split(".")
        (tree / "Makefile").write_text(
            f"VERSION = {version}\nPATCHLEVEL = {level}\nSUBLEVEL = {sub}\nEXTRAVERSION =\n"
        )
        (tree / ".unpacked").touch()

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.directory / "cache")}
        environment.pop("KERNEL_TREE", None)
        return subprocess.run(
            [self.kernel / script, *arguments], env=environment, capture_output=True, text=True
        )

    def applies(self, release: str) -> list[str]:
        """What is said of each patch."""
        result = self.run("build", "uml", "--applies", "--tree", release)
        assert result.stdout.startswith(f"Linux {release} ({PACKAGE} {release}-1)\n"), result.stderr
        outcomes = result.stdout.splitlines()[1:]
        assert result.returncode == (0 if all(": applies" in line for line in outcomes) else 1)
        return outcomes

    def write_fix_up(self, release: str, lines: list[str]) -> None:
        """As somebody who makes FILE that of ``lines`` by hand."""
        repository = self.directory / f"by hand for {release}"
        result = self.run("fix-up", release, str(repository))
        assert "does not apply" in result.stderr
        (repository / FILE).write_text("\n".join([*lines, ""]))
        result = self.run("fix-up", release, str(repository))
        assert f"The series applies to Linux {release}\n" in result.stdout, result.stderr


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return Series(tmp_path)


OTHER = changed(LINES, line35="another line 35")
OTHER_FIXED = changed(LINES, line5="line 5 of the first", line35="another line 35 of the first")


def test_applies_as_it_is(series: Series) -> None:
    """Where the lines around are the same, at another place too, nothing else is needed."""
    series.source("6.12.5", LINES)
    series.source("6.12.6", ["one line more", *LINES])
    for release in ("6.12.5", "6.12.6"):
        assert series.applies(release) == ["0001-first: applies", "0002-second: applies"]


def test_what_does_not_apply_is_named(series: Series) -> None:
    """One other line in a patched file: the patch, hunks and files, release, and what was tested last."""
    series.source("6.12.9", OTHER)
    assert series.applies("6.12.9") == [
        f"0001-first: does not apply (rejected hunks: 1, of {FILE})",
        "0002-second: applies",
    ]
    series.table(
        f"6.12.5\t{PACKAGE}\t6.12.5-1\tapplies\tyes\t0\t2026-01-02",
        f"6.12.5\t{PACKAGE}\t6.12.5-1\ttests/test_a\t1 passed\t0\t2026-01-02",
        f"6.12.8\t{PACKAGE}\t6.12.8-1\tapplies\tyes\t0\t2026-01-03",
    )
    result = series.run("build", "uml", "--tree", "6.12.9")
    assert result.returncode == 1
    assert f"0001-first.patch does not apply to Linux 6.12.9 (rejected hunks: 1, of {FILE})." in result.stderr
    assert "tested last: 6.12.5" in result.stderr


def test_fallback(series: Series) -> None:
    """--fallback takes the release that was tested last and to which the series applies; one line says so."""
    series.source("6.12.9", OTHER)
    series.source("6.12.5", LINES)
    series.table(
        f"6.12.5\t{PACKAGE}\t6.12.5-1\tapplies\tyes\t0\t2026-01-02",
        f"6.12.5\t{PACKAGE}\t6.12.5-1\ttests/test_a\t1 passed\t0\t2026-01-02",
        f"6.12.4\t{PACKAGE}\t6.12.4-1\tapplies\tyes\t0\t2026-01-02",
        f"6.12.4\t{PACKAGE}\t6.12.4-1\ttests/test_a\t1 passed\t0\t2026-01-01",
        f"6.12.9\t{PACKAGE}\t6.12.9-1\tapplies\tno: 0001\t0\t2026-01-03",
        f"6.12.9\t{PACKAGE}\t6.12.9-1\ttests/test_a\t1 passed\t0\t2026-01-03",
        "7.1.1\tlinux-source-7.1\t7.1.1-1\tapplies\tyes\t0\t2026-01-03",
        "7.1.1\tlinux-source-7.1\t7.1.1-1\ttests/test_a\t1 passed\t0\t2026-01-03",
    )
    result = series.run("build", "uml", "--fallback", "--paths", "--tree", "6.12.9")
    assert result.returncode == 0, result.stderr
    tree = Path(result.stdout.splitlines()[0])
    assert tree.name == f"tree-{PACKAGE}_6.12.5-1"
    assert "line 5 of the first\n" in (tree / FILE).read_text()
    (line,) = result.stderr.splitlines()
    assert "0001-first.patch does not apply to Linux 6.12.9" in line
    assert "Linux 6.12.5, which was tested last" in line


def test_fallback_is_not_needed(series: Series) -> None:
    """It changes nothing where the series applies."""
    series.source("6.12.5", LINES)
    result = series.run("build", "uml", "--fallback", "--paths", "--tree", "6.12.5")
    assert (result.stdout.splitlines()[0], result.stderr) == (
        str(series.cache / f"tree-{PACKAGE}_6.12.5-1"),
        "",
    )


def test_fallback_without_any_tested(series: Series) -> None:
    """Where no release was tested there is nothing to fall back to."""
    series.source("6.12.9", OTHER)
    result = series.run("build", "uml", "--fallback", "--tree", "6.12.9")
    assert result.returncode == 1
    assert "tested last: none" in result.stderr


def test_fix_up(series: Series) -> None:
    """What was done by hand replaces the rejected hunks, and the next patch applies to the result."""
    series.source("6.12.9", OTHER)
    series.write_fix_up("6.12.9", OTHER_FIXED)
    assert series.applies("6.12.9") == [
        "0001-first: applies with the fix-up of 6.12.9",
        "0002-second: applies",
    ]
    result = series.run("build", "uml", "--paths", "--tree", "6.12.9")
    tree = Path(result.stdout.splitlines()[0])
    expected = changed(OTHER_FIXED, line20="line 20 of the second")
    assert (tree / FILE).read_text().splitlines() == expected


def test_fix_up_of_a_file_elsewhere(series: Series) -> None:
    """Hunks of a file that is not there are rejected too; those of another file can replace them."""
    series.source("6.12.9", LINES)
    tree = series.cache / f"source-{PACKAGE}_6.12.9-1"
    other = tree / "net/mptcp/elsewhere.c"
    (tree / FILE).rename(other)
    assert series.applies("6.12.9")[0] == f"0001-first: does not apply (rejected hunks: 2, of {FILE})"
    repository = series.directory / "by hand"
    series.run("fix-up", "6.12.9", str(repository))
    for n in ("5", "35"):
        text = (repository / "net/mptcp/elsewhere.c").read_text()
        (repository / "net/mptcp/elsewhere.c").write_text(
            text.replace(f"line {n}\n", f"line {n} of the first\n")
        )
    assert "0002-second.patch does not apply" in series.run("fix-up", "6.12.9", str(repository)).stderr
    assert series.applies("6.12.9")[0] == "0001-first: applies with the fix-up of 6.12.9"
    assert not (repository / FILE).exists()


def test_nearest_fix_up_that_is_not_newer(series: Series) -> None:
    """Of several folders: that of the release, or the nearest older one; never a newer one."""
    third = changed(LINES, line35="a third line 35")
    series.source("6.12.9", OTHER)
    series.source("6.12.20", third)
    series.write_fix_up("6.12.9", OTHER_FIXED)
    series.write_fix_up("6.12.20", changed(LINES, line5="line 5 of the first", line35="third"))
    for release, lines in {"6.12.8": OTHER, "6.12.10": OTHER, "6.12.100": third}.items():
        series.source(release, lines)
    outcomes = {
        release: series.applies(release)[0] for release in ("6.12.8", "6.12.10", "6.12.20", "6.12.100")
    }
    assert outcomes == {
        "6.12.8": f"0001-first: does not apply (rejected hunks: 1, of {FILE})",
        "6.12.10": "0001-first: applies with the fix-up of 6.12.9",
        "6.12.20": "0001-first: applies with the fix-up of 6.12.20",
        "6.12.100": "0001-first: applies with the fix-up of 6.12.20",
    }


def test_no_fix_up_where_the_patch_applies(series: Series) -> None:
    """A fix-up of an older release does not touch one to which the patch applies."""
    series.source("6.12.9", OTHER)
    series.write_fix_up("6.12.9", OTHER_FIXED)
    series.source("6.12.10", LINES)
    assert series.applies("6.12.10") == ["0001-first: applies", "0002-second: applies"]


def test_old_fix_up_of_an_edited_patch(series: Series) -> None:
    """A fix-up replaces the hunks for which it was written: if one of them is edited, it says so."""
    series.source("6.12.9", OTHER)
    series.write_fix_up("6.12.9", OTHER_FIXED)
    path = series.kernel / "patches/0001-first.patch"
    path.write_text(path.read_text().replace("line 35 of the first", "line 35 of an edit"))
    assert series.applies("6.12.9")[0] == (
        f"0001-first: does not apply (rejected hunks: 1, of {FILE}),"
        " and the fix-up of 6.12.9 is for other ones"
    )
    path.write_text(path.read_text().replace("line 35 of an edit", "line 35 of the first"))
    path.write_text(path.read_text().replace("line 5 of the first", "line 5 of an edit"))
    assert series.applies("6.12.9")[0] == "0001-first: applies with the fix-up of 6.12.9"


def test_fix_up_that_does_not_apply(series: Series) -> None:
    """The rejects are those of the fix-up, but the release has other lines there."""
    series.source("6.12.9", OTHER)
    series.write_fix_up("6.12.9", OTHER_FIXED)
    series.source("6.12.10", changed(LINES, line35="a third line 35"))
    assert series.applies("6.12.10")[0].endswith(", nor does the fix-up of 6.12.9")


def test_a_further_patch_belongs_to_the_series(series: Series) -> None:
    """Patches are found by their numbers; the cover letter is none."""
    series.source("6.12.5", LINES)
    series.write("0000-cover-letter.patch", "no patch")
    series.write(
        "0010-tenth.patch",
        patch(series.directory, LINES[:10], changed(LINES[:10], line2="line 2 of the tenth")),
    )
    assert series.applies("6.12.5")[2] == "0010-tenth: applies"


def test_tarball(series: Series) -> None:
    """--source takes a tarball instead of a package: the files that the series touches are enough to ask."""
    series.source("6.12.9", OTHER)
    tree = series.cache / f"source-{PACKAGE}_6.12.9-1"
    with tarfile.open(series.directory / "linux.tar.xz", "w:xz") as tarball:
        for name in ("Makefile", FILE):
            tarball.add(tree / name, f"linux-6.12.9/{name}")
    tarball_name = str(series.directory / "linux.tar.xz")
    result = series.run("build", "uml", "--applies", "--source", tarball_name)
    assert result.stdout.splitlines()[:2] == [
        f"Linux 6.12.9 ({tarball_name})",
        f"0001-first: does not apply (rejected hunks: 1, of {FILE})",
    ]


def test_what_is_not_kept_offline(series: Series) -> None:
    """--offline fetches nothing."""
    result = series.run("build", "uml", "--applies", "--offline", "--tree", "6.12.77")
    assert (result.returncode, result.stdout) == (1, "")
    assert "its source is not kept" in result.stderr


@pytest.mark.parametrize("tree", ["newest", "-x", "linux-image-6.12"])
def test_trees(series: Series, tree: str) -> None:
    """What a tree can be is said where it is none."""
    result = series.run("build", "uml", "--applies", "--tree", tree)
    assert result.returncode == 1
    assert f"not {tree}" in result.stderr
