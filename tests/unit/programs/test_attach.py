# SPDX-License-Identifier: Apache-2.0
"""Doing what the plan says, on attachments without a kernel."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import cast

from pm.errors import KernelRefused
from pm.linux.bpf.attachments import Attachments
from pm.linux.bpf.cgroup_links import CgroupGone
from pm.programs.attach import Attach, Detach, Replace, attach

DIRECTORIES = {i: Path(f"/{i}") for i in range(1, 5)}


class FakeAttachments:
    """Attaches to any directory but those in ``refusals``."""

    def __init__(self, attached: dict[int, str | None], refusals: dict[Path, int]) -> None:
        self.attached = attached
        self.refusals = refusals

    def attach(self, cgroup: Path, cgroup_id: int, key: str) -> None:
        if self.refusals.get(cgroup) == errno.ENOENT:
            raise CgroupGone(cgroup)
        if cgroup in self.refusals:
            raise KernelRefused(f"attach to {cgroup}", self.refusals[cgroup])
        self.attached[cgroup_id] = key

    def replace(self, cgroup_id: int, key: str) -> None:
        self.attached[cgroup_id] = key

    def detach(self, cgroup_id: int) -> None:
        del self.attached[cgroup_id]


async def test_attached_becomes_wanted() -> None:
    """Each action is done once and reported; asked again, there is nothing to do."""
    fake = FakeAttachments({1: "a", 2: None, 3: "a"}, {})
    attachments = cast("Attachments[str]", fake)
    wanted = {1: "a", 2: "a", 4: "b"}
    outcomes = await attach(attachments, wanted, [1, 2, 3, 4], DIRECTORIES)
    assert outcomes == [(Replace(2, "a"), None), (Attach(4, "b"), None), (Detach(3), None)]
    assert fake.attached == wanted
    assert await attach(attachments, wanted, [1, 2, 3, 4], DIRECTORIES) == []


async def test_refusals_are_reported_but_for_cgroups_that_are_gone() -> None:
    """One refusal does not keep the other cgroups from their programs."""
    fake = FakeAttachments({}, {Path("/1"): errno.EPERM, Path("/2"): errno.ENOENT})
    outcomes = await attach(cast("Attachments[str]", fake), {1: "a", 2: "a", 3: "a"}, [1, 2, 3], DIRECTORIES)
    assert [(action, refused and refused.errno) for action, refused in outcomes] == [
        (Attach(1, "a"), errno.EPERM),
        (Attach(3, "a"), None),
    ]
    assert fake.attached == {3: "a"}
