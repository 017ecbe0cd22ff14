# SPDX-License-Identifier: Apache-2.0
"""Following the cgroup2 tree as it changes, whatever those do to whom parts of it are delegated.

Trouble with one directory costs that one and what is below it. Where inotify cannot follow, the tree is
read every ``RESCAN_S`` instead.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

from asyncinotify import Event, Inotify, Mask

from pm.linux.host.cgroups import children, directory_of, path_below, path_of_directory
from pm.log_budget import get_limited_logger

RESCAN_S = 10.0
DEPTH_MAX = 64
"""Levels of cgroups that are followed; those below belong to the policy of their nearest ancestor."""
DELEGATED_MAX = 1024
"""Cgroups that are followed below (and with) one directory that root gave to another user."""
CGROUPS_MAX = 65536
WAITING_MAX = 4096

_FOLLOWED = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.ONLYDIR
_MORE_WATCHES = "raise their number: sysctl -w fs.inotify.max_user_watches=..."
_MORE_INSTANCES = "raise their number: sysctl -w fs.inotify.max_user_instances=1024"

log = get_limited_logger()


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

    def __init__(self, root: Path, inotify: Inotify | None) -> None:
        """Without ``inotify`` the tree is read every ``RESCAN_S``."""
        self._root = root
        self._owner = 0
        self._inotify = inotify
        self._could_match_below: Callable[[str], bool] = _nowhere
        self._looking = asyncio.Lock()
        self._incomplete = False
        """Something was passed over that may be there the next time."""
        self._delegated: dict[str, str] = {}
        """Path -> the delegated directory that it is in, or is."""
        self._in_delegated: Counter[str] = Counter()
        self.cgroups: dict[str, int] = {}
        """Path -> id of every cgroup in that part of the tree, as of the last change."""

    @classmethod
    @asynccontextmanager
    async def open(cls, root: Path) -> AsyncIterator[Self]:
        """A watcher of the cgroup2 tree at ``root``."""
        try:
            inotify = Inotify(cache_size=64)
            os.set_blocking(inotify.fd, False)  # asyncinotify 4 means it so, but has another flag's value
        except OSError as e:
            log.warning("cgroups_not_watched", error=e.strerror, every_s=RESCAN_S, remedy=_MORE_INSTANCES)
            inotify = None
        try:
            yield cls(root, inotify)
        finally:
            if inotify:
                inotify.close()

    async def rescan(self, could_match_below: Callable[[str], bool]) -> Changes:
        """Look at the whole tree, with a new rule for which parts of it to watch."""
        async with self._looking:
            self._could_match_below = could_match_below
            return self._apply(*await asyncio.to_thread(self._scan))

    async def __aiter__(self) -> AsyncIterator[Changes]:
        """Changes as they happen. At most half of the time goes to them, however many there are."""
        clock = asyncio.get_running_loop().time
        while True:
            directories = await self._next_directories()
            began = clock()
            async with self._looking:
                changes = self._apply(*await asyncio.to_thread(self._look, directories))
            if changes:
                yield changes
            await asyncio.sleep(min(clock() - began, 1.0))

    async def _next_directories(self) -> set[Path] | None:
        """Directories that something happened to; None where the whole tree is to be read."""
        if self._inotify is None:
            await asyncio.sleep(RESCAN_S)
            return None
        found: set[Path] = set()
        while not found:
            try:
                async with asyncio.timeout(RESCAN_S if self._incomplete else None):
                    event = await self._inotify.get()
            except TimeoutError:
                return None
            for followed in (event, *_waiting(self._inotify)):
                if Mask.IGNORED in followed.mask or not followed.mask & (Mask.ISDIR | Mask.Q_OVERFLOW):
                    continue
                if followed.path is None:  # events were lost, or the watch was added as this one was read
                    return None
                found.add(followed.path)
        return found

    # In a thread, with the lock held: what was there before, and what is there now.

    def _look(self, directories: set[Path] | None) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Compare what is in these places now with what was there, whatever the events said about it."""
        if directories is None:
            return self._scan()
        before: dict[str, int] = {}
        found: dict[str, int] = {}
        for directory in directories:
            path = path_of_directory(self._root, directory)
            here = dict(self._enter(path, room=CGROUPS_MAX - len(self.cgroups)))
            before |= {p: self.cgroups[p] for p in {path, *here} if p in self.cgroups}
            found |= here
        return before, found

    def _scan(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        if inotify := self._inotify:
            for watch in inotify.watches:
                if not self._could_match_below(path_of_directory(self._root, watch.path)):
                    with suppress(OSError):  # its directory has gone already
                        inotify.rm_watch(watch)
        with suppress(OSError):
            self._owner = os.stat(self._root).st_uid
        self._incomplete = False
        self._delegated.clear()
        self._in_delegated.clear()
        return self.cgroups, dict(self._enter("/", room=CGROUPS_MAX))

    def _enter(self, start: str, *, room: int) -> Iterator[tuple[str, int]]:
        """A cgroup and those below it, at most ``room`` new ones; the shallow ones first.

        Each is watched before it is listed, so that none slips through.
        """
        ahead = deque([start])
        while ahead:
            path = ahead.popleft()
            directory = directory_of(self._root, path)
            try:
                if refusal := self._refusal(path, os.stat(directory).st_uid, room):
                    self._pass_over(path, refusal)
                    continue
                room -= 1
                below = self._could_match_below(path)
                if below:
                    self._watch(path, directory)
                status = os.stat(directory)
                yield path, status.st_ino
                # A directory with two links has no directories in it: most have none, but many files.
                if below and status.st_nlink != 2:
                    ahead += [path_below(path, name) for name in islice(children(directory), CGROUPS_MAX)]
            except FileNotFoundError:
                continue
            except OSError as e:
                self._pass_over(path, e.strerror or str(e))
                yield from self._known_at(path)

    def _refusal(self, path: str, owner: int, room: int) -> str:
        """Why a cgroup is not followed, or ""."""
        if path.count("/") > DEPTH_MAX:
            return f"more than {DEPTH_MAX} levels deep"
        if room <= 0 and path not in self.cgroups:
            return f"more than {CGROUPS_MAX} cgroups"
        top = self._delegated.get(path.rpartition("/")[0]) or (path if owner != self._owner else None)
        if top is None or path in self._delegated:
            return ""
        if self._in_delegated[top] >= DELEGATED_MAX:
            return f"more than {DELEGATED_MAX} cgroups in one delegated directory"
        self._delegated[path] = top
        self._in_delegated[top] += 1
        return ""

    def _known_at(self, path: str) -> Iterator[tuple[str, int]]:
        """What was known of a part of the tree that cannot be read at the moment."""
        below = f"{path.rstrip('/')}/"
        return ((p, i) for p, i in self.cgroups.items() if p == path or p.startswith(below))

    def _watch(self, path: str, directory: Path) -> None:
        if self._inotify is None:
            return
        try:
            self._inotify.add_watch(directory, _FOLLOWED)
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                raise
            self._pass_over(path, f"cannot be watched: {e.strerror}", _MORE_WATCHES)

    def _pass_over(self, path: str, reason: str, remedy: str | None = None) -> None:
        self._incomplete = True
        log.warning("cgroup_passed_over", about=reason, cgroup=path[:200], reason=reason, remedy=remedy)

    # In the event loop: others read ``cgroups`` there.

    def _apply(self, before: Mapping[str, int], found: Mapping[str, int]) -> Changes:
        added = {path: id_ for path, id_ in found.items() if before.get(path) != id_}
        removed = {path: id_ for path, id_ in before.items() if found.get(path) != id_}
        for path in removed.keys() - found.keys():
            del self.cgroups[path]
            if top := self._delegated.pop(path, None):
                self._in_delegated[top] -= 1
        self.cgroups |= found
        return Changes(added=added, removed=removed)


def _nowhere(path: str) -> bool:
    return False


def _waiting(inotify: Inotify) -> Iterator[Event]:
    """The events that are there already."""
    with suppress(BlockingIOError):
        for _ in range(WAITING_MAX):
            if event := inotify.sync_get():
                yield event
