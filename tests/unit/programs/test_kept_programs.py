# SPDX-License-Identifier: Apache-2.0
"""Which changes of programs and pins are told, and what setting them back does; without a kernel."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from pm.errors import KernelRefused
from pm.linux.bpf.attachments import Attachments
from pm.linux.bpf.cgroup_links import CgroupGone
from pm.programs.attach import MatchedCgroup
from pm.programs.classifiers import Selection
from pm.programs.kept_programs import KeptPrograms


class FakeAttachments:
    entry = "classify"

    def __init__(self) -> None:
        self.attached: dict[int, str] = {}
        self.gone: dict[int, str] = {}
        self.unpinned: set[str] = set()
        self.refusal: KernelRefused | None = None

    def lost(self) -> dict[int, str]:
        return self.gone

    def reattach(self, cgroup: Path, cgroup_id: int) -> None:
        if self.refusal:
            raise self.refusal
        del self.gone[cgroup_id]

    def missing_pins(self) -> set[str]:
        return self.unpinned

    def restore_pins(self) -> None:
        self.unpinned.clear()


class Programs:
    def __init__(self, attachments: FakeAttachments | None) -> None:
        self.attachments = cast("Attachments[Any] | None", attachments)


class FakeSelection:
    def __init__(self, cgroups: dict[int, MatchedCgroup]) -> None:
        self.cgroups = cgroups
        self.swept = 0

    async def sweep(self) -> None:
        self.swept += 1

    @asynccontextmanager
    async def steady(self) -> AsyncIterator[dict[int, MatchedCgroup]]:
        yield self.cgroups


@pytest.fixture
def attachments() -> FakeAttachments:
    return FakeAttachments()


def kept(tmp_path: Path, attachments: FakeAttachments) -> tuple[KeptPrograms, int]:
    """With one cgroup, a directory that exists; and its id."""
    directory = tmp_path / "a"
    directory.mkdir()
    cgroup_id = directory.stat().st_ino
    attachments.attached = {cgroup_id: "x", 7: "x"}
    cgroups = {
        cgroup_id: MatchedCgroup("/a", directory, "x"),
        7: MatchedCgroup("/a", directory, "x"),  # removed, and another one has its name
    }
    selection = FakeSelection(cgroups)
    kinds = [None, Programs(None), Programs(attachments)]
    return KeptPrograms(cast("Selection", selection), kinds), cgroup_id


async def test_nothing_changed(tmp_path: Path, attachments: FakeAttachments) -> None:
    programs, _ = kept(tmp_path, attachments)
    assert await programs.look() == {}


async def test_cgroups_that_are_gone_are_no_change(tmp_path: Path, attachments: FakeAttachments) -> None:
    """A program that ended with its cgroup was not detached by anybody."""
    programs, cgroup_id = kept(tmp_path, attachments)
    attachments.gone = {7: "was detached", 8: "was detached", cgroup_id: "was detached"}
    assert list(await programs.look()) == ["the program classify on /a"]


async def test_set_back(tmp_path: Path, attachments: FakeAttachments) -> None:
    programs, cgroup_id = kept(tmp_path, attachments)
    attachments.gone = {cgroup_id: "was detached"}
    attachments.unpinned = {"counters", "sessions"}
    changes = await programs.look()
    assert {thing: change.found for thing, change in changes.items()} == {
        "the program classify on /a": "was detached",
        "the pins of classify": "lack 2",
    }
    for change in changes.values():
        await change.restore()
    assert await programs.look() == {}


async def test_a_refusal_is_told(tmp_path: Path, attachments: FakeAttachments) -> None:
    """Somebody else's exclusive program is a reason; a cgroup that went meanwhile is none."""
    programs, cgroup_id = kept(tmp_path, attachments)
    attachments.gone = {cgroup_id: "was detached"}
    (change,) = (await programs.look()).values()
    attachments.refusal = KernelRefused("attach", errno.EPERM)
    with pytest.raises(KernelRefused):
        await change.restore()
    attachments.refusal = CgroupGone(tmp_path)
    await change.restore()
    del attachments.attached[cgroup_id]  # a reload meanwhile
    attachments.refusal = KernelRefused("attach", errno.EPERM)
    await change.restore()
