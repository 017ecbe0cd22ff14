# SPDX-License-Identifier: GPL-2.0-only
"""Following a file's content by inotify: rewritten in place, replaced, or behind a swapped symlink."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

from asyncinotify import Inotify, Mask

_MASK = Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.CREATE | Mask.DELETE | Mask.ATTRIB | Mask.ONLYDIR
Signature = tuple[int, int, int, int] | None


async def file_changes(path: Path) -> AsyncIterator[None]:
    """Yields after each change of what ``path`` names, also where a link on the way is swapped.

    A Kubernetes ConfigMap is such a link: ``config.yaml -> ..data/config.yaml``, ``..data`` replaced.
    """
    seen = _signature(path)
    while True:
        with Inotify() as inotify:
            for directory in _directories(path):
                try:
                    inotify.add_watch(directory, _MASK)
                except OSError:
                    continue  # gone between two looks: its parent tells when it is back
            # It can have changed before the watches were there.
            changed = _signature(path) != seen
            while not changed:
                await inotify.get()
                changed = _signature(path) != seen
        seen = _signature(path)
        yield


def _signature(path: Path) -> Signature:
    """What tells one content from another without reading it; None where there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _directories(path: Path) -> set[Path]:
    """The directories in which a change can make ``path`` name something else."""
    directories: set[Path] = set()
    hop = Path(os.path.abspath(path))
    for _ in range(40):  # as many links as the kernel follows
        for parent in hop.parents:
            # Links among the parents are hops too.
            if parent.is_symlink():
                directories.add(parent.parent)
        directories.add(hop.parent)
        try:
            target = os.readlink(hop)
        except OSError:
            break
        hop = Path(os.path.normpath(hop.parent / target))
    return directories
