# SPDX-License-Identifier: GPL-2.0-only
"""Finds where a file system is mounted (proc(5), /proc/self/mounts)."""

from __future__ import annotations

import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")


def find_mount(fstype: str, mounts: Path = _MOUNTS) -> Path | None:
    """The first mount point of a file system of this type, or None."""
    for line in mounts.read_text(errors="surrogateescape").splitlines():
        _, directory, found, *_ = line.split(" ")
        if found == fstype:
            return Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), directory))
    return None
