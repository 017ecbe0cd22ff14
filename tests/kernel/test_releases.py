# SPDX-License-Identifier: Apache-2.0
"""kernel/releases.tsv is of the series that is there, and so is the table in kernel/README.md."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest

from tests.kernel.releases import (
    KERNEL,
    NOT_OFFERED,
    README,
    Fact,
    cell,
    fix_up,
    markdown,
    patches,
    read_table,
    series_digest,
    summary,
    update,
    version_key,
)

FACTS = read_table()
APPLIES = [fact for fact in FACTS if fact.what == "applies" and fact.result != NOT_OFFERED]
FACT = Fact("6.12.5", "linux-source-6.12", "6.12.5-1", "tests/test_a", "3 passed", "0", "2026-01-02")


def test_table_is_of_this_series() -> None:
    """Whoever changes a patch or a fix-up has to ask again which releases it applies to."""
    old = [fact.release for fact in APPLIES if fact.series != series_digest(fact.release)]
    assert not old, f"the series has changed since {', '.join(old)} were asked: run make kernel-releases"


def test_series_applies_to_every_release() -> None:
    """That is what fix-ups are for."""
    assert [fact.release for fact in APPLIES if not fact.result.startswith("yes")] == []
    assert {fact.package for fact in APPLIES} >= {"linux-source-6.12"}


def test_readme_has_the_table() -> None:
    """The form for readers is that of the facts."""
    assert markdown(FACTS) in README.read_text()


def kept(release: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KERNEL / "build", "uml", "--applies", "--offline", "--tree", release], capture_output=True, text=True
    )


def test_releases_whose_source_is_kept() -> None:
    """To these the series applies now, with the fix-ups of the table; others take minutes to download."""
    for fact in APPLIES:
        result = kept(fact.release)
        if "is not kept" in result.stderr:
            continue
        assert result.returncode == 0, result.stdout + result.stderr
        fixed = [line for line in result.stdout.splitlines() if "with the fix-up of" in line]
        assert len(fixed) == fact.result.count(":")
        for line in fixed:
            assert f"{line[:4]}: {line.split()[-1]}" in fact.result


def test_fix_ups_are_those_of_the_scripts() -> None:
    """The digest takes in the same fix-ups as the build."""
    environment = {"KERNEL": str(KERNEL), **os.environ}
    for patch in patches():
        for release in (*{fact.release for fact in APPLIES}, "6.12.1", "6.13", "7.99.1"):
            found = subprocess.run(
                ["bash", "-c", '. "$KERNEL/source.sh"; fix_up "$@"', "bash", str(patch), release],
                env=environment, check=True, capture_output=True, text=True,
            ).stdout.strip()  # fmt: skip
            assert found == str(fix_up(patch, release) or "")


def test_versions_are_ordered_by_number() -> None:
    """6.12.95 is older than 6.12.107, and 6.12 than both."""
    releases = ["7.3", "6.12.107", "6.12.95", "6.12"]
    assert sorted(releases, key=version_key) == ["6.12", "6.12.95", "6.12.107", "7.3"]


def test_new_facts_replace_old_ones() -> None:
    """One fact for each thing of a release."""
    new = replace(FACT, result="2 passed, 1 failed")
    other = replace(FACT, what="tests/test_b")
    assert update([FACT, other], [new]) == [other, new]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("....\n4 passed in 1.23s\n", "4 passed"),
        (
            "FAILED tests/a.py::test_x[1] - Error\n1 failed, 3 passed, 2 warnings in 5s\n",
            "3 passed, 1 failed (test_x[1])",
        ),
        ("ERROR tests/a.py::test_y\n1 error in 5s\n", "1 error (test_y)"),
        ("", "did not run"),
    ],
)
def test_summary(output: str, expected: str) -> None:
    """What pytest says in the end, without times, and which tests failed."""
    assert summary(output) == expected


def test_cell_of_several_files() -> None:
    """Passed tests are added up; what failed is told by file, and so is an older series."""
    facts = [
        FACT,
        replace(FACT, what="tests/test_b", result="2 passed, 1 failed (test_x)", date="2026-01-03"),
    ]
    text = cell(facts, "tests/")
    assert text.startswith("5 passed, 2 of ")
    assert text.endswith("files; test_b: 2 passed, 1 failed (test_x) (2026-01-03 of an older series)")
    assert cell(facts, "builds") == ""
