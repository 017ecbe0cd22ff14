# SPDX-License-Identifier: Apache-2.0
"""Finds where a file system is mounted (proc(5), /proc/self/mountinfo)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

MOUNTINFO = Path("/proc/self/mountinfo")


class Mount(NamedTuple):
    """``root`` is the path within the file system that is mounted on ``directory``."""

    root: str
    directory: Path


def find_mounts(fstype: str, mountinfo: Path = MOUNTINFO) -> list[Mount]:
    """All mounts of a file system type, in the order in which they were made."""
    found: dict[Path, Mount] = {}
    for line in mountinfo.read_text(errors="surrogateescape").splitlines():
        place, _, what = line.partition(" - ")
        _, _, _, root, directory, *_ = place.split(" ")
        if what.split(" ")[0] == fstype:
            mount = Mount(_unescaped(root), Path(_unescaped(directory)))
            found[mount.directory] = mount  # a later one covers an earlier one
    return list(found.values())


def find_mount(fstype: str, mountinfo: Path = MOUNTINFO) -> Path | None:
    """The first mount point of a file system of this type, or None."""
    return next((mount.directory for mount in find_mounts(fstype, mountinfo)), None)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), text)
