# SPDX-License-Identifier: GPL-2.0-only
"""Which program is attached to which cgroup: the difference between wanted and attached, and doing it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pm.errors import KernelRefused
from pm.log import get_logger

if TYPE_CHECKING:
    from pm.linux.bpf.attachments import Attachments


log = get_logger()


class Attach(NamedTuple):
    cgroup_id: int
    policy: str


class Replace(NamedTuple):
    """Another policy's program takes over: no connection in between is missed."""

    cgroup_id: int
    policy: str


class Detach(NamedTuple):
    cgroup_id: int


class Place(NamedTuple):
    """A cgroup that a policy's glob matches; ``path`` is relative to the cgroup2 root."""

    path: str
    directory: Path
    policy: str


AttachmentAction = Attach | Replace | Detach


def plan_attachments(
    wanted: Mapping[int, str], attached: Mapping[int, str], cgroup_ids: Iterable[int]
) -> list[AttachmentAction]:
    """What makes ``attached`` (cgroup id -> policy) equal to ``wanted`` for some cgroups. Pure.

    Attach comes before Detach: a cgroup is never without the classifier it could have.
    """
    actions: list[AttachmentAction] = []
    detach: list[AttachmentAction] = []
    for cgroup_id in cgroup_ids:
        want, have = wanted.get(cgroup_id), attached.get(cgroup_id)
        if want == have:
            continue
        if want is None:
            detach.append(Detach(cgroup_id))
        elif have is None:
            actions.append(Attach(cgroup_id, want))
        else:
            actions.append(Replace(cgroup_id, want))
    return actions + detach


def perform(
    attachments: Attachments, action: AttachmentAction, directories: Mapping[int, Path]
) -> KernelRefused | None:
    """Do one action; ``directories`` are those of cgroups by id. The kernel's refusal is returned."""
    try:
        match action:
            case Attach(cgroup_id, name):
                attachments.attach(directories[cgroup_id], cgroup_id, name)
            case Replace(cgroup_id, name):
                attachments.replace(cgroup_id, name)
            case Detach(cgroup_id):
                attachments.detach(cgroup_id)
    except KernelRefused as e:
        return e
    return None


async def settle(
    attachments: Attachments,
    wanted: Mapping[int, str],
    places: Mapping[int, Place],
    *,
    keep: Collection[str],
) -> None:
    """Make what is attached equal to ``wanted`` (cgroup id -> program) for programs beside the classifiers.

    ``places`` are all cgroups, by id, that a policy's glob matches. The programs to ``keep`` stay
    loaded: the next cgroup must not wait for the kernel's verifier.
    """
    actions = plan_attachments(wanted, attachments.attached, {*wanted, *attachments.attached})
    if not actions:
        return
    directories = {cgroup_id: place.directory for cgroup_id, place in places.items()}
    errors = await asyncio.to_thread(
        lambda: [perform(attachments, action, directories) for action in actions]
    )
    attachments.unload_unused(keep)
    for action, error in zip(actions, errors, strict=True):
        if error and error.errno != errno.ENOENT:  # its removal is on the way
            place = places.get(action.cgroup_id)
            log.warning(
                "program_not_attached",
                program=attachments.entry,
                cgroup=place and place.path,
                error=str(error),
            )
