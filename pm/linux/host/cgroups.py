# SPDX-License-Identifier: GPL-2.0-only
"""The cgroup2 tree: where it is, paths and ids in it, and following it as it changes.

A path is text relative to the mount, ``/`` for the root and ``/a/b`` below. A cgroup's id in the
kernel (INET_DIAG_CGROUP_ID, bpf_link_info) is the inode number of its directory, and is not reused
until reboot.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import re
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

from asyncinotify import Event, Inotify, Mask

from pm.errors import PmError, SystemUnfit
from pm.linux.host.cgroup_tree import find_tree

_FOLLOWED = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.ONLYDIR
_FILEID_KERNFS = 0xFE  # include/linux/exportfs.h
KNOWN_MAX = 4096
_OTHERS_MAX = 16384


def find_cgroup_root(wanted: Path | None = None) -> Path:
    """Where the cgroup2 tree is: /sys/fs/cgroup, or below it beside cgroup v1 (hybrid layout).

    Raises SystemUnfit where it is not mounted, and where ``wanted`` is not in one.
    """
    if root := find_tree(wanted).directory:
        return root
    raise SystemUnfit("cgroup2 is not mounted", "mount -t cgroup2 none /sys/fs/cgroup/unified")


def directory_of(root: Path, path: str) -> Path:
    """The directory of a cgroup path."""
    return root / path[1:]


class CgroupIds:
    """From a cgroup's id to its path, also for cgroups that no policy is about, and for removed ones.

    A cgroup's sockets outlive it. Paths that were once found or told are known for ever, the last 4096.
    A question about another id takes a few system calls; without CAP_DAC_READ_SEARCH it looks through
    the whole tree, one stat(2) per cgroup, and remembers all of it.
    """

    def __init__(self, root: Path, *, noted: object = None, on_new: Callable[[], object] = bool) -> None:
        """``noted`` is what ``notes`` gave to the service before. ``on_new``: ``notes`` has changed."""
        self.root = root
        self._on_new = on_new
        self._paths = _paths_of(noted)
        self._others: dict[int, str | None] = {}
        """The rest of the tree, where all of it was looked through; None for ids without a cgroup."""

    def path_of(self, cgroup_id: int) -> str | None:
        """The cgroup's path; None for one outside the mount, or removed before anybody asked."""
        if path := self._paths.pop(cgroup_id, None):
            self._paths[cgroup_id] = path  # the last one now
            return path
        if cgroup_id not in self._others:
            if len(self._others) >= _OTHERS_MAX:
                self._others.clear()
            try:
                self._others[cgroup_id] = self._find(cgroup_id)
            except OSError:  # no descriptor left, say: asked again next time
                return None
        if path := self._others[cgroup_id]:
            self.remember(cgroup_id, path)
        return path

    def remember(self, cgroup_id: int, path: str) -> None:
        """This is, or was, a cgroup's path."""
        if self._paths.pop(cgroup_id, None) is None:
            self._on_new()
        self._paths[cgroup_id] = path
        if len(self._paths) > KNOWN_MAX:
            del self._paths[next(iter(self._paths))]

    def forget(self, cgroup_id: int) -> None:
        """A cgroup is gone, and so are all its sockets."""
        if self._paths.pop(cgroup_id, None) is not None:
            self._on_new()

    def notes(self) -> dict[str, str]:
        """What the next service must know (``pm.linux.host.notes``)."""
        return {str(cgroup_id): path for cgroup_id, path in self._paths.items()}

    def _find(self, cgroup_id: int) -> str | None:
        try:
            return _open_by_id(self.root, cgroup_id)
        except PermissionError:  # no CAP_DAC_READ_SEARCH
            self._others |= _walk(self.root)
            return self._others.get(cgroup_id)


class Changes(NamedTuple):
    """Cgroups that came and went, path -> id. A path in both has another cgroup than before."""

    added: Mapping[str, int]
    removed: Mapping[str, int]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


class CgroupWatcher:
    """Follows, with inotify, the part of the tree in which a glob can match; made by ``open``.

    It watches every directory for which ``could_match_below`` is true; ``cgroups`` has those and
    their immediate children: none before the first ``rescan``. One task iterates over it:
    ``async for changes in watcher``.
    """

    def __init__(self, root: Path, inotify: Inotify) -> None:
        self._root = root
        self._inotify = inotify
        self._could_match_below: Callable[[str], bool] = _nowhere
        self._looking = asyncio.Lock()
        self.cgroups: dict[str, int] = {}
        """Path -> id of every cgroup in that part of the tree, as of the last change."""

    @classmethod
    @asynccontextmanager
    async def open(cls, root: Path) -> AsyncIterator[Self]:
        """A watcher of the cgroup2 tree at ``root``. Raises PmError where inotify has no instance left."""
        try:
            inotify = Inotify(cache_size=64)
        except OSError as e:
            raise PmError(
                f"cannot follow cgroups: inotify: {e.strerror}",
                "sysctl -w fs.inotify.max_user_instances=1024",
            ) from e
        try:
            yield cls(root, inotify)
        finally:
            inotify.close()

    async def rescan(self, could_match_below: Callable[[str], bool]) -> Changes:
        """Look at the whole tree, with a new rule for which parts of it to watch.

        Raises PmError where there are more directories to watch than inotify allows.
        """
        async with self._looking:
            self._could_match_below = could_match_below
            return await asyncio.to_thread(self._scan)

    async def __aiter__(self) -> AsyncIterator[Changes]:
        """Changes as they happen. Raises PmError like ``rescan``."""
        while True:
            event = await self._inotify.get()
            if Mask.IGNORED in event.mask or not event.mask & (Mask.ISDIR | Mask.Q_OVERFLOW):
                continue
            async with self._looking:
                changes = await asyncio.to_thread(self._take, event)
            if changes:
                yield changes

    def _take(self, event: Event) -> Changes:
        directory = event.path
        if directory is None:  # events were lost, or the watch was added while this one was read
            return self._scan()
        return self._look(self._path_of(directory))

    def _look(self, path: str) -> Changes:
        """Compare what is at a path now with what was there, whatever the event said about it."""
        found = dict(self._enter(path))
        before = {p: self.cgroups[p] for p in {path, *found} if p in self.cgroups}
        for gone in before.keys() - found.keys():
            del self.cgroups[gone]
        self.cgroups |= found
        return _difference(before, found)

    def _scan(self) -> Changes:
        for watch in self._inotify.watches:
            if not self._could_match_below(self._path_of(watch.path)):
                with suppress(OSError):  # its directory has gone already
                    self._inotify.rm_watch(watch)
        before, self.cgroups = self.cgroups, dict(self._enter("/"))
        return _difference(before, self.cgroups)

    def _enter(self, path: str) -> Iterator[tuple[str, int]]:
        """A cgroup and those below it. Each is watched before it is listed, so that none slips through."""
        directory = directory_of(self._root, path)
        try:
            if not self._could_match_below(path):
                yield path, os.stat(directory).st_ino
                return
            self._watch(directory)
            status = os.stat(directory)
            yield path, status.st_ino
            # A directory with two links has no directories in it: most have none, but many files.
            children = _children(directory) if status.st_nlink != 2 else []
        except FileNotFoundError:
            return
        for name in children:
            yield from self._enter(f"{path.rstrip('/')}/{name}")

    def _watch(self, directory: Path) -> None:
        try:
            self._inotify.add_watch(directory, _FOLLOWED)
        except OSError as e:
            if e.errno != errno.ENOSPC:
                raise
            raise PmError(
                "more cgroups to follow than there are inotify watches",
                "raise their number with sysctl -w fs.inotify.max_user_watches=...",
            ) from e

    def _path_of(self, directory: Path) -> str:
        return "/" + str(directory)[len(str(self._root)) :].lstrip("/")


def _paths_of(noted: object) -> dict[int, str]:
    """The notes of another service, which may be of another version."""
    if not isinstance(noted, dict):
        return {}
    return {
        int(i): path for i, path in noted.items() if re.fullmatch("[0-9]{1,20}", i) and isinstance(path, str)
    }


def _nowhere(path: str) -> bool:
    return False


def _difference(before: Mapping[str, int], now: Mapping[str, int]) -> Changes:
    return Changes(
        added={path: id_ for path, id_ in now.items() if before.get(path) != id_},
        removed={path: id_ for path, id_ in before.items() if now.get(path) != id_},
    )


def _children(directory: Path) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _walk(root: Path, path: str = "/") -> Iterator[tuple[int, str]]:
    """Id and path of every cgroup of the tree."""
    directory = directory_of(root, path)
    try:
        yield os.stat(directory).st_ino, path
        children = _children(directory)
    except FileNotFoundError:
        return
    for name in children:
        yield from _walk(root, f"{path.rstrip('/')}/{name}")


def _open_by_id(root: Path, cgroup_id: int) -> str | None:
    """The path of a cgroup by its file handle (kernfs_encode_fh); None for one that is gone or outside.

    Raises PermissionError without CAP_DAC_READ_SEARCH.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    handle = struct.pack("=IiQ", 8, _FILEID_KERNFS, cgroup_id)
    mount = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd = libc.open_by_handle_at(mount, handle, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if fd < 0:
            if ctypes.get_errno() == errno.EPERM:
                raise PermissionError
            return None
    finally:
        os.close(mount)
    try:
        directory = Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)
    return "/" + str(directory.relative_to(root)).lstrip(".") if directory.is_relative_to(root) else None
