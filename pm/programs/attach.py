# SPDX-License-Identifier: Apache-2.0
"""Which program is attached to which cgroup: the difference between wanted and attached, and doing it.

``Key`` is what makes two programs of one kind the same (``pm.linux.bpf.attachments``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pm.errors import KernelRefused
from pm.linux.bpf.attachments import Attachments
from pm.linux.bpf.cgroup_links import CgroupGone

Key = TypeVar("Key")


class Attach(NamedTuple, Generic[Key]):
    """Attach a program to a cgroup that has none."""

    cgroup_id: int
    program: Key


class Replace(NamedTuple, Generic[Key]):
    """Replace a cgroup's program in one step: no connection in between is missed."""

    cgroup_id: int
    program: Key


class Detach(NamedTuple):
    """Take the program off a cgroup."""

    cgroup_id: int


class MatchedCgroup(NamedTuple):
    """A cgroup that a policy's glob matches; ``path`` is relative to the cgroup2 root."""

    path: str
    directory: Path
    policy: str


AttachmentAction = Attach[Key] | Replace[Key] | Detach
OnChange = Callable[[str, str | None], None]
OnCgroups = Callable[[Mapping[int, MatchedCgroup]], Awaitable[None]]


def plan_attachments(
    wanted: Mapping[int, Key], attached: Mapping[int, Key | None], cgroup_ids: Iterable[int]
) -> list[AttachmentAction[Key]]:
    """What makes ``attached`` (cgroup id -> program) equal to ``wanted`` for some cgroups. Pure.

    An attached None is a program of another service. Attach comes before Detach: a cgroup is never
    without the program it could have.
    """
    actions: list[AttachmentAction[Key]] = []
    detach: list[AttachmentAction[Key]] = []
    for cgroup_id in cgroup_ids:
        if cgroup_id not in wanted:
            if cgroup_id in attached:
                detach.append(Detach(cgroup_id))
        elif cgroup_id not in attached:
            actions.append(Attach(cgroup_id, wanted[cgroup_id]))
        elif attached[cgroup_id] != wanted[cgroup_id]:
            actions.append(Replace(cgroup_id, wanted[cgroup_id]))
    return actions + detach


class Outcome(NamedTuple):
    """What became of one cgroup: ``refused`` is the kernel's error, None where ``action`` was done."""

    action: AttachmentAction[Any]
    refused: KernelRefused | None


async def attach(
    attachments: Attachments[Any],
    wanted: Mapping[int, Any],
    cgroup_ids: Collection[int],
    directories: Mapping[int, Path],
) -> list[Outcome]:
    """Make what is attached to some cgroups equal to ``wanted`` (cgroup id -> program).

    ``directories`` has at least the wanted cgroups' directories, by id. Returns what was done or refused.
    A refusal because the cgroup is gone is left out: its inotify event will follow.
    """
    actions = plan_attachments(wanted, attachments.attached, cgroup_ids)
    if not actions:
        return []
    outcomes = await asyncio.to_thread(_perform, attachments, actions, directories)
    return [o for o in outcomes if not isinstance(o.refused, CgroupGone)]


def _perform(
    attachments: Attachments[Any],
    actions: Iterable[AttachmentAction[Any]],
    directories: Mapping[int, Path],
) -> list[Outcome]:
    outcomes = []
    for action in actions:
        refused = None
        try:
            match action:
                case Attach(cgroup_id, program):
                    attachments.attach(directories[cgroup_id], cgroup_id, program)
                case Replace(cgroup_id, program):
                    attachments.replace(cgroup_id, program)
                case Detach(cgroup_id):
                    attachments.detach(cgroup_id)
        except KernelRefused as e:
            refused = e
        outcomes.append(Outcome(action, refused))
    return outcomes
