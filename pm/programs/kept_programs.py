# SPDX-License-Identifier: Apache-2.0
"""Programs that somebody detached or replaced, and pins that somebody removed: found, and set back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pm.linux.bpf.attachments import Attachments
from pm.linux.bpf.cgroup_links import CgroupGone
from pm.programs.attach import MatchedCgroup
from pm.programs.whole_namespace import AnySelection
from pm.upkeep import Change


class Programs(Protocol):
    """Programs of one kind."""

    @property
    def attachments(self) -> Attachments[Any] | None: ...


class KeptPrograms:
    """Programs of all kinds, as a ``pm.upkeep.Kept``."""

    def __init__(self, selection: AnySelection, kinds: Sequence[Programs | None]) -> None:
        """``kinds`` are asked for their programs at each look."""
        self._sweep = selection.sweep
        self._steady = selection.steady
        self._kinds = kinds

    async def look(self) -> dict[str, Change]:
        """A program per cgroup, and the pins of each kind."""
        await self._sweep()
        async with self._steady() as cgroups:
            return await asyncio.to_thread(self._look, cgroups)

    def _look(self, cgroups: Mapping[int, MatchedCgroup]) -> dict[str, Change]:
        changes = {}
        for attachments in (kind.attachments for kind in self._kinds if kind):
            if attachments is None:
                continue
            for cgroup_id, found in attachments.lost().items():
                cgroup = cgroups.get(cgroup_id)
                if cgroup and _exists(cgroup.directory, cgroup_id):
                    restore = partial(self._reattach, attachments, cgroup.directory, cgroup_id)
                    thing = f"the program {attachments.entry} on {cgroup.path}"
                    changes[thing] = Change(found, restore)
            if missing := attachments.missing_pins():
                restore = partial(self._restore_pins, attachments)
                changes[f"the pins of {attachments.entry}"] = Change(f"lack {len(missing)}", restore)
        return changes

    async def _reattach(self, attachments: Attachments[Any], cgroup: Path, cgroup_id: int) -> None:
        async with self._steady():
            if cgroup_id in attachments.attached:
                await asyncio.to_thread(_reattach, attachments, cgroup, cgroup_id)

    async def _restore_pins(self, attachments: Attachments[Any]) -> None:
        async with self._steady():
            await asyncio.to_thread(attachments.restore_pins)


def _reattach(attachments: Attachments[Any], cgroup: Path, cgroup_id: int) -> None:
    try:
        attachments.reattach(cgroup, cgroup_id)
    except CgroupGone:
        return  # removed meanwhile


def _exists(directory: Path, cgroup_id: int) -> bool:
    try:
        return os.stat(directory).st_ino == cgroup_id
    except OSError:
        return False
