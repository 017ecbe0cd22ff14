# SPDX-License-Identifier: Apache-2.0
"""The cgroup2 tree: where it is, paths and ids in it.

A path is text relative to the mount, ``/`` for the root and ``/a/b`` below, with names as
``pm.names.show_name`` shows them. A cgroup's id in the kernel (INET_DIAG_CGROUP_ID, bpf_link_info) is
the inode number of its directory, and is not reused until reboot.

Whoever a part of the tree was delegated to makes as many cgroups there as they like, as deep as they
like, with names of any bytes: whatever walks the tree has bounds, and passes over what it cannot read.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from pm.errors import SystemUnfit
from pm.linux.host.cgroup_tree import find_tree
from pm.names import read_name, show_name

_FILEID_KERNFS = 0xFE  # include/linux/exportfs.h
KNOWN_MAX = 4096
KNOWN_CHARACTERS_MAX = 1024 * 1024
"""Of all known paths together: one has at most 4096 bytes, most have less than 100."""
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
    return root / os.fsdecode(read_name(path[1:]))


def path_of_directory(root: Path, directory: Path) -> str:
    """The cgroup path of a directory at or below ``root``: the inverse of ``directory_of``."""
    below = directory.relative_to(root)
    return f"/{show_name(os.fsencode(below))}" if below.parts else "/"


def path_below(path: str, name: str) -> str:
    """The path of a child of a cgroup; ``name`` is as ``os`` gives it."""
    return f"{path.rstrip('/')}/{show_name(os.fsencode(name))}"


def children(directory: Path) -> list[str]:
    """Names of the directories in a directory. Raises OSError."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


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
        self._characters = sum(map(len, self._paths.values()))
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
        former = self._paths.pop(cgroup_id, None)
        if former is None:
            self._on_new()
        self._paths[cgroup_id] = path
        self._characters += len(path) - len(former or "")
        while len(self._paths) > KNOWN_MAX or self._characters > KNOWN_CHARACTERS_MAX:
            self._characters -= len(self._paths.pop(next(iter(self._paths))))

    def forget(self, cgroup_id: int) -> None:
        """A cgroup is gone, and so are all its sockets."""
        if (path := self._paths.pop(cgroup_id, None)) is not None:
            self._characters -= len(path)
            self._on_new()

    def notes(self) -> dict[str, str]:
        """What the next service must know (``pm.linux.host.notes``)."""
        return {str(cgroup_id): path for cgroup_id, path in self._paths.items()}

    def _find(self, cgroup_id: int) -> str | None:
        try:
            return _open_by_id(self.root, cgroup_id)
        except PermissionError:  # no CAP_DAC_READ_SEARCH
            self._others |= walk(self.root)
            return self._others.get(cgroup_id)


def _paths_of(noted: object) -> dict[int, str]:
    """The notes of another service, which may be of another version."""
    if not isinstance(noted, dict):
        return {}
    return {
        int(i): path for i, path in noted.items() if re.fullmatch("[0-9]{1,20}", i) and isinstance(path, str)
    }


def walk(root: Path) -> Iterator[tuple[int, str]]:
    """Id and path of the cgroups of the tree, the shallow ones first; the first ``_OTHERS_MAX``. Blocks."""
    ahead = deque(["/"])
    for _ in range(_OTHERS_MAX):
        if not ahead:
            return
        path = ahead.popleft()
        directory = directory_of(root, path)
        try:
            yield os.stat(directory).st_ino, path
            ahead += [path_below(path, name) for name in islice(children(directory), _OTHERS_MAX)]
        except OSError:  # gone, or too deep for the path of a file
            continue


def _open_by_id(root: Path, cgroup_id: int) -> str | None:
    """The path of a cgroup by its file handle (kernfs_encode_fh); None for one that is gone or outside.

    Raises PermissionError without CAP_DAC_READ_SEARCH, OSError for one too deep for the path of a file.
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
    return path_of_directory(root, directory) if directory.is_relative_to(root) else None
