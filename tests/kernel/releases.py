# SPDX-License-Identifier: Apache-2.0
"""What is known of the series on each release of Linux: kernel/releases.tsv, and a table in kernel/README.md.

``python -m tests.kernel.releases`` asks of every release that Debian offers whether the series applies;
``--record builds``, ``--record tests [FILE...]`` and ``--record selftests`` do that for one (``--tree``,
otherwise the release that is installed) and record what came of it. Nothing is written by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path

KERNEL = Path(__file__).parents[2] / "kernel"
PATCHES = KERNEL / "patches"
TABLE = KERNEL / "releases.tsv"
README = KERNEL / "README.md"
INSIDE = Path(__file__).parent / "inside"
MARKERS = ("<!-- make kernel-releases writes this -->\n", "<!-- until here -->\n")
MAIN_PACKAGE = "linux-source-6.12"
NOT_OFFERED = "not offered any more"


@dataclass(frozen=True)
class Fact:
    """One line of the table: what was found about one thing on one release.

    ``what`` is ``applies``, ``builds``, ``tests/FILE`` or ``selftests/FILE``; ``series`` identifies the
    patches with which it was found, and ``date`` is that of the finding.
    """

    release: str
    package: str
    version: str
    what: str
    result: str
    series: str
    date: str


def version_key(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


def patches() -> list[Path]:
    """Those of the series, without the cover letter."""
    return [patch for patch in sorted(PATCHES.glob("[0-9]*.patch")) if not patch.name.startswith("0000-")]


def fix_up(patch: Path, release: str) -> Path | None:
    """That of the nearest folder that has one and is not newer; as fix_up of kernel/source.sh."""
    found = [
        path
        for path in PATCHES.glob(f"*/{patch.name}")
        if version_key(path.parent.name) <= version_key(release)
    ]
    return max(found, key=lambda path: version_key(path.parent.name), default=None)


def series_digest(release: str) -> str:
    """Identifies the series for a release: its patches and fix-ups."""
    digest = hashlib.sha256()
    for patch in patches():
        for path in (patch, fix_up(patch, release)):
            if path:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def read_table() -> list[Fact]:
    lines = TABLE.read_text().splitlines()[1:] if TABLE.exists() else []
    return [Fact(*line.split("\t")) for line in lines]


def write_table(facts: list[Fact]) -> None:
    """The table, and its form for readers."""
    facts = sorted(facts, key=lambda fact: (version_key(fact.release), fact.what))
    lines = [tuple(Fact.__dataclass_fields__), *map(astuple, facts)]
    TABLE.write_text("".join("\t".join(line) + "\n" for line in lines))
    before, rest = README.read_text().split(MARKERS[0])
    README.write_text(before + MARKERS[0] + markdown(facts) + MARKERS[1] + rest.split(MARKERS[1])[1])


def update(facts: list[Fact], new: list[Fact]) -> list[Fact]:
    """New facts replace old ones about the same thing."""
    replaced = {(fact.release, fact.what) for fact in new}
    return [fact for fact in facts if (fact.release, fact.what) not in replaced] + new


def markdown(facts: list[Fact]) -> str:
    """One row for each release, the newest first."""
    titles = [
        "release",
        "Debian's package",
        "applies",
        "builds",
        "`tests/kernel/inside`",
        "upstream's selftests",
    ]
    rows = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for release in sorted({fact.release for fact in facts}, key=version_key, reverse=True):
        found = [fact for fact in facts if fact.release == release]
        package = f"{found[0].package} {found[0].version}"
        cells = [cell(found, what) for what in ("applies", "builds", "tests/", "selftests/")]
        rows.append("| " + " | ".join([release, package, *cells]) + " |")
    return "\n".join(rows) + "\n"


def cell(facts: list[Fact], what: str) -> str:
    """What is known of one release in one respect."""
    found = [fact for fact in facts if fact.what.startswith(what)]
    if not found:
        return ""
    if what.endswith("/"):
        passed = sum(int(n) for fact in found for n in re.findall(r"(\d+) passed", fact.result))
        bad = [f"{fact.what.removeprefix(what)}: {fact.result}" for fact in found if not good(fact)]
        files = f"{len(found)} of {len(list(INSIDE.glob('test_*.py')))} files" if what == "tests/" else ""
        text = ", ".join(filter(None, [f"{passed} passed", files]))
        text = "; ".join([text, *bad])
    else:
        text = found[0].result
    old = " of an older series" if any(fact.series != series_digest(fact.release) for fact in found) else ""
    return f"{text} ({max(fact.date for fact in found)}{old})"


def good(fact: Fact) -> bool:
    return bool(re.fullmatch(r"yes.*|\d+ passed", fact.result))


def offered() -> list[tuple[str, str, str]]:
    """Release, package and version: of 6.12 all that Debian offers, and of the newest stable Linux too."""
    script = ". kernel/source.sh; offered"
    output = subprocess.run(
        ["bash", "-c", script], cwd=KERNEL.parent, check=True, stdout=subprocess.PIPE, text=True
    )
    pairs = [line.split() for line in output.stdout.splitlines()]
    newest = max((package for package, _ in pairs), key=version_key)
    found: dict[str, tuple[str, str, str]] = {}
    for package, version in pairs:
        release = version.partition("-")[0]
        if package in (MAIN_PACKAGE, newest):
            found.setdefault(release, (release, package, version))
    return list(found.values())


def build(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([KERNEL / "build", "uml", *options], stdout=subprocess.PIPE, text=True)


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def ask_applies(release: str, package: str, version: str) -> Fact:
    """Whether the series applies."""
    lines = build("--applies", "--tree", f"{package}={version}").stdout.splitlines()[1:]
    said = dict(line.split(": ", 1) for line in lines)
    bad = [name[:4] for name, outcome in said.items() if not outcome.startswith("applies")]
    fixed = [f"{name[:4]}: {outcome.split()[-1]}" for name, outcome in said.items() if "fix-up" in outcome]
    if not said:
        result = NOT_OFFERED
    elif bad:
        result = f"no: {', '.join(bad)}"
    else:
        result = f"yes, fix-ups {', '.join(fixed)}" if fixed else "yes"
    return Fact(release, package, version, "applies", result, series_digest(release), today())


def refresh() -> None:
    facts = read_table()
    trees = offered()
    known = {release for release, _, _ in trees}
    trees += {(fact.release, fact.package, fact.version) for fact in facts if fact.release not in known}
    for tree in sorted(trees, key=lambda tree: version_key(tree[0])):
        fact = ask_applies(*tree)
        print(f"{fact.release} ({fact.package} {fact.version}): {fact.result}", flush=True)
        # Read again: somebody may have recorded something meanwhile.
        write_table(update(read_table(), [fact]))


def summary(output: str) -> str:
    """The results in the last line of pytest, without the time, and which tests failed."""
    counts = re.findall(r"(\d+) (passed|failed|error)", output.strip().rpartition("\n")[2])
    text = ", ".join(f"{n} {word}" for n, word in sorted(counts, key=lambda count: count[1] != "passed"))
    failed = re.findall(r"^(?:FAILED|ERROR) \S+?::(\S+)", output, re.MULTILINE)
    return f"{text or 'did not run'}{' (' + ', '.join(failed) + ')' if failed else ''}"


def record(what: str, tree: str, files: list[str]) -> None:
    """Build, or run the tests, and write what came of each file at once."""
    options = ("--tree", tree) if tree else ()
    applied = build("--applies", *options)
    match = re.match(r"Linux (\S+) \((\S+) (\S+)\)\n", applied.stdout)
    if applied.returncode or not match:
        raise SystemExit(f"the series does not apply:\n{applied.stdout}")
    release, package, version = match.groups()

    def found(name: str, result: str) -> None:
        fact = Fact(release, package, version, name, result, series_digest(release), today())
        print(f"{release}: {name}: {result}", flush=True)
        write_table(update(read_table(), [fact]))

    if what == "builds":
        found("builds", "yes" if build(*options).returncode == 0 else "no")
    elif what == "tests":
        for path in sorted(INSIDE.glob("test_*.py")):
            if files and path.stem not in files:
                continue
            pytest = (
                sys.executable,
                "-B",
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "--color=no",
                "--tb=no",
            )
            result = subprocess.run(
                [KERNEL / "run", *options, "--mem", "4G", "--timeout", "3600", "--", *pytest, path],
                env={"MPTCP_PM_TEST_PATIENCE": "4", **os.environ},
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            found(f"tests/{path.stem}", summary(result.stdout))
    else:
        output = subprocess.run(
            [KERNEL / "selftests", *options, *files], stdout=subprocess.PIPE, text=True
        ).stdout
        for name, same, ok, bad in re.findall(r"^(\S+) +([a-zA-Z ]+): (\d+) ok, (\d+) not ok", output, re.M):
            text = f"{ok} passed" if same == "same" and bad == "0" else f"{ok} passed, {bad} failed, {same}"
            found(f"selftests/{name}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", choices=["builds", "tests", "selftests"])
    parser.add_argument("--tree", default="", help="as of kernel/build")
    parser.add_argument("files", nargs="*", help="of the tests or selftests, instead of all")
    arguments = parser.parse_args()
    if arguments.record:
        record(arguments.record, arguments.tree, arguments.files)
    else:
        refresh()


if __name__ == "__main__":
    main()
