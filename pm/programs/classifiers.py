# SPDX-License-Identifier: Apache-2.0
"""Selection per cgroup: keeps a classifier attached to every cgroup that a policy's glob matches.

Level-triggered: what is attached is compared with what should be, for all cgroups at start and after
a reload, otherwise for those that came and went.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from pm.errors import KernelRefused
from pm.linux.bpf.classifier_maps import Classifier
from pm.linux.bpf.objects import SOURCES
from pm.linux.bpf.precompiled import obtain_object
from pm.linux.host.cgroup_watcher import CgroupWatcher
from pm.linux.host.cgroups import CgroupIds, directory_of
from pm.linux.host.remedies import bpffs_remedy
from pm.log import get_logger
from pm.log_budget import get_limited_logger
from pm.policies.policy_table import PolicyTable
from pm.programs.attach import Detach, MatchedCgroup, OnCgroups, OnChange, Outcome, attach
from pm.sessions.policy_assignment import Classified

if TYPE_CHECKING:
    from pm.policies.model import Policy

log = get_logger()
FOUND_MAX = 1024
limited = get_limited_logger()


class Table(Protocol):
    """What is asked of the policies (``pm.policies.policy_table.PolicyTable``)."""

    automatic: Policy | None
    found: frozenset[str]

    @property
    def policies(self) -> Sequence[Policy]: ...
    def with_found(self, cgroups: Iterable[str], /) -> Self: ...
    def match(self, cgroup: str, /) -> Policy | None: ...
    def direct(self, cgroup: str, /) -> Policy | None: ...
    def could_match_below(self, cgroup: str, /) -> bool: ...


class Selection:
    """Which policy owns a connection or a cgroup; made by ``open``."""

    def __init__(
        self,
        *,
        root: Path,
        watcher: CgroupWatcher,
        classifier: Classifier,
        on_change: OnChange,
        on_cgroups: OnCgroups,
        ids: CgroupIds,
        own_cgroup: int = 0,
    ) -> None:
        """See ``open``."""
        self._own_cgroup = own_cgroup
        self.news = asyncio.Event()
        """``cgroup: auto`` has found cgroups: ``attach_found`` attaches."""
        self._root = root
        self._watcher = watcher
        self._classifier = classifier
        self._on_change = on_change
        self._on_cgroups = on_cgroups
        self._table: Table = PolicyTable(())
        self._lock = asyncio.Lock()
        self._ids = ids
        self._removed: dict[int, str] = {}
        """Id -> path of removed cgroups that keep their programs: sockets of theirs may live."""
        self._wanted: dict[int, str] = {}
        self._paths: dict[int, str] = {}
        self._policies: dict[str, Policy] = {}
        self.failures: dict[str, KernelRefused] = {}
        """Cgroup path -> why no classifier could be attached. Tried again on the next reload."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        log_file: Path,
        keep: Callable[[], bool],
        on_change: OnChange,
        on_cgroups: OnCgroups,
        cgroup_root: Path,
        ids: CgroupIds,
        bpffs: Path | None,
        own_cgroup: int = 0,
    ) -> AsyncIterator[Self]:
        """Compile, and take over what an earlier service left; ``apply`` attaches.

        ``log_file`` gets the compiler's or verifier's log when they refuse the program. ``keep`` is
        asked at the end whether the classifiers stay for the next start. ``on_change`` hears of each
        cgroup path and the policy attached to it from now on (None: no longer), ``on_cgroups`` of all
        cgroups, by id, that a policy's glob matches. ``ids`` may know removed cgroups. Without a
        ``bpffs`` nothing is pinned. ``own_cgroup`` is what ``cgroup: auto`` leaves out.

        Raises SystemUnfit, PmError.
        """
        if not bpffs:
            log.warning("bpffs_not_mounted", remedy=await asyncio.to_thread(bpffs_remedy))
        async with CgroupWatcher.open(cgroup_root) as watcher:
            program = await obtain_object(SOURCES / "classify.c", log_file=log_file)
            classifier = await asyncio.to_thread(Classifier.open, program, bpffs=bpffs, log_file=log_file)
            try:
                yield cls(
                    root=cgroup_root,
                    watcher=watcher,
                    classifier=classifier,
                    on_change=on_change,
                    on_cgroups=on_cgroups,
                    ids=ids,
                    own_cgroup=own_cgroup,
                )
            finally:
                await asyncio.to_thread(classifier.close, keep=keep())

    async def run(self) -> None:
        """Follow the cgroups forever."""
        async for changes in self._watcher:
            async with self._lock:
                for path, cgroup_id in changes.removed.items():
                    self._forget(path, cgroup_id)
                for path, cgroup_id in changes.added.items():
                    if self._watcher.cgroups.get(path) == cgroup_id:  # a reload may know better by now
                        self._want(path, cgroup_id)
                await self._attach({*changes.removed.values(), *changes.added.values()})

    async def apply(self, table: Table) -> None:
        """Attach what these policies want, at the start and after a reload."""
        async with self._lock:
            table = table.with_found(self._table.found)
            await self._watcher.rescan(table.could_match_below)
            self._table = table.with_found(self._table.found)  # those of meanwhile too
            before = {*self._wanted, *self._classifier.attached}
            self._wanted, self._policies = {}, {}
            self.failures.clear()
            present = {cgroup_id: path for path, cgroup_id in self._watcher.cgroups.items()}
            self._removed = self._find_removed(present)
            for cgroup_id, path in (present | self._removed).items():
                self._want(path, cgroup_id)
            await asyncio.to_thread(self._classifier.write, table.policies)
            await self._attach({*before, *self._wanted})
            self._classifier.unload_unused()

    @asynccontextmanager
    async def steady(self) -> AsyncIterator[dict[int, MatchedCgroup]]:
        """All cgroups, by id, that a policy's glob matches; nothing is attached or detached meanwhile."""
        async with self._lock:
            yield self._matched()

    async def sweep(self) -> None:
        """Take the programs off removed cgroups whose last socket is gone."""
        async with self._lock:
            if self._removed:
                lost = await asyncio.to_thread(self._classifier.lost)
                gone = lost.keys() & self._removed.keys()
                for cgroup_id in gone:
                    del self._wanted[cgroup_id]
                    self._ids.forget(cgroup_id)
                await self._attach(gone)
                for cgroup_id in gone:
                    del self._removed[cgroup_id]

    # `cgroup: auto`

    @property
    def automatic(self) -> Policy | None:
        """The policy for ``auto``."""
        return self._table.automatic

    def find(self, cgroup_id: int) -> None:
        """A cgroup has a socket in this network namespace: ``auto`` is about it from now on."""
        table = self._table
        if table.automatic is None or cgroup_id == self._own_cgroup or len(table.found) >= FOUND_MAX:
            return
        path = self.cgroup_path(cgroup_id)
        if path and not table.direct(path):
            self._table = table.with_found({*table.found, path})
            self.news.set()

    async def attach_found(self) -> None:
        """Attach to what was found since, and forget what has gone. Raises PmError like ``apply``."""
        self.news.clear()
        tried = self._table.found
        await self.apply(self._table)
        gone = tried - {*self._watcher.cgroups, *self._removed.values()}
        self._table = self._table.with_found(self._table.found - gone)

    # Queries

    @property
    def attachments(self) -> Classifier:
        """The classifiers themselves."""
        return self._classifier

    def classify(self, local: str, local_port: int, remote: str, remote_port: int) -> Classified | None:
        """The policy whose classifier saw this initial subflow come up; the answer is given only once.

        The event can precede the classifier by microseconds: retry a miss at the session's next event.
        """
        found = self._classifier.take(local, local_port, remote, remote_port)
        policy = self._policies.get(found.policy) if found else None
        return Classified(policy, found.device, found.mark) if found and policy else None

    def policy_of_cgroup(self, cgroup_id: int) -> Policy | None:
        """The policy that owns the sockets of a cgroup, also where no classifier ran."""
        self.find(cgroup_id)
        path = self.cgroup_path(cgroup_id)
        return self._table.match(path) if path else None

    def policy_at(self, path: str) -> Policy | None:
        """The policy that owns connections of a cgroup, there or not."""
        return self._table.match(path)

    def cgroup_path(self, cgroup_id: int) -> str | None:
        """None for a cgroup outside the cgroup2 mount, or gone before anybody asked."""
        return self._ids.path_of(cgroup_id)

    def attached(self) -> dict[str, str]:
        """Cgroup path -> policy whose classifier is attached there."""
        out = {*self._removed, *self._classifier.away}
        return {
            self._paths[cgroup_id]: policy
            for cgroup_id, policy in self._classifier.attached.items()
            if policy and cgroup_id in self._paths and cgroup_id not in out
        }

    def counters(self) -> dict[str, int]:
        """Sessions ``classified`` and ``failed`` (not recorded) since the maps were made."""
        return self._classifier.counters()

    # Keeping what is attached equal to what is wanted

    def _want(self, path: str, cgroup_id: int) -> None:
        if policy := self._table.direct(path):
            self._wanted[cgroup_id] = policy.name
            self._paths[cgroup_id] = path
            self._policies[policy.name] = policy
            self._ids.remember(cgroup_id, path)

    def _forget(self, path: str, cgroup_id: int) -> None:
        self.failures.pop(path, None)
        if cgroup_id in self._wanted and cgroup_id in self._classifier.attached:
            # The kernel runs it for the sockets that are left, and for what they accept.
            self._removed[cgroup_id] = path
            self._tell(path, None)
        else:
            self._wanted.pop(cgroup_id, None)

    def _find_removed(self, present: Collection[int]) -> dict[int, str]:
        """Removed cgroups that still have a program, of this service or an earlier one, and a policy."""
        left = self._classifier.attached.keys() - present
        paths = {cgroup_id: self.cgroup_path(cgroup_id) for cgroup_id in left}
        return {cgroup_id: path for cgroup_id, path in paths.items() if path and self._table.direct(path)}

    async def _attach(self, cgroup_ids: set[int]) -> None:
        directories = {c: directory_of(self._root, self._paths[c]) for c in cgroup_ids if c in self._paths}
        for outcome in await attach(self._classifier, self._wanted, cgroup_ids, directories):
            self._report(outcome)
        for gone in cgroup_ids - self._wanted.keys() - self._classifier.attached.keys():
            self._paths.pop(gone, None)
        await self._on_cgroups(self._matched())

    def _matched(self) -> dict[int, MatchedCgroup]:
        return {
            cgroup_id: MatchedCgroup(path, directory_of(self._root, path), policy)
            for cgroup_id, policy in self._wanted.items()
            if (path := self._paths.get(cgroup_id))
        }

    def _report(self, outcome: Outcome) -> None:
        action, refused = outcome
        if action.cgroup_id in self._removed:
            return  # told when it was removed
        path = self._paths.get(action.cgroup_id, "")
        policy = None if isinstance(action, Detach) else action.program
        if refused:
            self.failures[path] = refused
            limited.warning(
                "classifier_not_attached", about=path, cgroup=path, policy=policy, error=str(refused)
            )
        elif path:
            self._tell(path, policy)

    def _tell(self, path: str, policy: str | None) -> None:
        event = "classifier_attached" if policy else "classifier_detached"
        limited.info(event, about=path, cgroup=path, policy=policy)
        self._on_change(path, policy)
