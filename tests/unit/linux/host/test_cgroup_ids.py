# SPDX-License-Identifier: Apache-2.0
"""Which paths of removed cgroups are known."""

from __future__ import annotations

from pathlib import Path

from pm.linux.host import cgroups
from pm.linux.host.cgroups import CgroupIds


def ids(tmp_path: Path, noted: object = None) -> CgroupIds:
    """Over a directory that is no cgroup tree: no id has a path there."""
    return CgroupIds(tmp_path, noted=noted)


def test_what_was_told_is_known_to_the_next_service(tmp_path: Path) -> None:
    first = ids(tmp_path)
    first.remember(5, "/a")
    first.remember(6, "/b")
    first.forget(6)
    second = ids(tmp_path, first.notes())
    assert (second.path_of(5), second.path_of(6)) == ("/a", None)


def test_only_news_are_told(tmp_path: Path) -> None:
    """Each write of the notes has a cause."""
    told: list[None] = []
    known = CgroupIds(tmp_path, on_new=lambda: told.append(None))
    for _ in range(3):
        known.remember(5, "/a")
        known.path_of(5)
        known.path_of(9)
    assert len(told) == 1
    known.forget(5)
    known.forget(5)
    assert len(told) == 2


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    """Without bound, cgroups that come and go would fill the memory; a question counts as a use."""
    known = ids(tmp_path)
    known.remember(0, "/old")
    for number in range(1, cgroups.KNOWN_MAX):
        known.remember(number, f"/{number}")
    assert known.path_of(0) == "/old"
    known.remember(cgroups.KNOWN_MAX, "/new")
    assert len(known.notes()) == cgroups.KNOWN_MAX
    assert (known.path_of(0), known.path_of(1)) == ("/old", None)


def test_notes_of_another_version(tmp_path: Path) -> None:
    """What cannot be a cgroup is not believed."""
    found: tuple[object, ...] = (None, [], "x", {"a": "/x", "5": 5, "-6": "/y"})
    for noted in found:
        assert ids(tmp_path, noted).notes() == {}
