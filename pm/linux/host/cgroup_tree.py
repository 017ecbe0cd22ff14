# SPDX-License-Identifier: Apache-2.0
"""Where the cgroup2 tree is, and whether other cgroups than our own can be seen in it.

In a container with a cgroup namespace of its own, the root of the mount is the container's own cgroup.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pm.errors import SystemUnfit
from pm.linux.host.mounts import MOUNTINFO, Mount, find_mounts

_OWN_CGROUP = Path("/proc/self/cgroup")


class CgroupTree(NamedTuple):
    """``directory`` is None where cgroup2 is not mounted; ``visible``: others' cgroups are in it."""

    directory: Path | None
    visible: bool


def find_tree(
    root: Path | None = None, *, mountinfo: Path = MOUNTINFO, own_cgroup: Path = _OWN_CGROUP
) -> CgroupTree:
    """The tree at ``root``; without it, the first mount that shows others' cgroups, else the first of all.

    Raises SystemUnfit where ``root`` is not in a cgroup2 file system.
    """
    mounts = find_mounts("cgroup2", mountinfo)
    own = _path_of_this_process(own_cgroup)
    if root is not None:
        return CgroupTree(root, _shows_others(_directory_as_mount(root.resolve(), mounts), own))
    trees = [CgroupTree(m.directory, _shows_others(m, own)) for m in mounts if _is_cgroup(m.directory)]
    return next((tree for tree in trees if tree.visible), trees[0] if trees else CgroupTree(None, False))


def _shows_others(mount: Mount, own: str) -> bool:
    """Both paths begin at the root of this process's cgroup namespace; only the real root has no events."""
    return mount.root != own or not (mount.directory / "cgroup.events").exists()


def _directory_as_mount(directory: Path, mounts: list[Mount]) -> Mount:
    """A directory as if it were a mount of its own."""
    within = [m for m in mounts if directory.is_relative_to(m.directory)]
    if not within or not _is_cgroup(directory):
        raise SystemUnfit(
            f"{directory} is not in a cgroup2 file system", "give --cgroup-root where the host's is mounted"
        )
    mount = max(within, key=lambda m: len(m.directory.parts))
    return Mount(str(Path(mount.root, directory.relative_to(mount.directory))), directory)


def _is_cgroup(directory: Path) -> bool:
    return (directory / "cgroup.procs").exists()


def _path_of_this_process(own_cgroup: Path) -> str:
    """Our cgroup as cgroups(7) has it, ``/`` for the root of our cgroup namespace; "" without cgroup2."""
    lines = own_cgroup.read_text(errors="surrogateescape").splitlines()
    return next((line[3:] for line in lines if line.startswith("0::")), "")
