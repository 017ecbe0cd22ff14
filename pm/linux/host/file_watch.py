# SPDX-License-Identifier: Apache-2.0
"""Follows a file's content by inotify: it may be rewritten, replaced, or behind a symlink that changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

from asyncinotify import Inotify, Mask

_MASK = Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.CREATE | Mask.DELETE | Mask.ATTRIB | Mask.ONLYDIR
Signature = tuple[int, int, int, int] | None


async def file_changes(path: Path, seen: Signature) -> AsyncIterator[None]:
    """Yield after each change of the file that ``path`` names, also when a link on the way is replaced.

    A Kubernetes ConfigMap has such links: ``config.yaml -> ..data/config.yaml``; ``..data`` is replaced.
    ``seen`` is the file's ``signature`` before it was read: what has changed since is a change too.
    """
    while True:
        with Inotify() as inotify:
            await asyncio.to_thread(_watch, inotify, path)
            # The file may have changed before the watches existed.
            while (found := await asyncio.to_thread(signature, path)) == seen:
                await inotify.get()
        seen = found
        yield


async def first_change(seen: Mapping[Path, Signature]) -> dict[Path, Signature]:
    """Wait until one of these files differs from its signature; the signatures that it finds then."""
    with Inotify() as inotify:
        for path in seen:
            await asyncio.to_thread(_watch, inotify, path)
        while (found := await asyncio.to_thread(signatures, seen)) == seen:
            await inotify.get()
    return found


def signatures(paths: Iterable[Path]) -> dict[Path, Signature]:
    """The ``signature`` of each of these files."""
    return {path: signature(path) for path in paths}


def _watch(inotify: Inotify, path: Path) -> None:
    for directory in _directories(path):
        try:
            inotify.add_watch(directory, _MASK)
        except OSError:
            continue  # it has just gone: its parent reports when it is back


def signature(path: Path) -> Signature:
    """A value that differs when the content differs, without reading it; None if there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _directories(path: Path) -> set[Path]:
    """The directories in which a change can make ``path`` name something else."""
    directories: set[Path] = set()
    hop = Path(os.path.abspath(path))
    for _ in range(40):  # the kernel follows as many links
        for parent in hop.parents:
            # A parent may be a link too.
            if parent.is_symlink():
                directories.add(parent.parent)
        directories.add(hop.parent)
        try:
            target = os.readlink(hop)
        except OSError:
            break
        hop = Path(os.path.normpath(hop.parent / target))
    return directories
