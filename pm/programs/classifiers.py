# SPDX-License-Identifier: GPL-2.0-only
"""Selection per cgroup: keeps a classifier attached to every cgroup that a policy's glob matches.

Level-triggered: what is attached is compared with what should be, for all cgroups at start and after
a reload, for those that came and went otherwise.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from pm.errors import KernelRefused
from pm.linux.bpf.classifier_maps import Classifier
from pm.linux.bpf.objects import SOURCES, compile_object
from pm.linux.host.cgroups import CgroupIds, CgroupWatcher, directory_of, find_cgroup_root
from pm.linux.host.mounts import find_mount
from pm.log import get_logger
from pm.programs.attach import AttachmentAction, Detach, Place, perform, plan_attachments

if TYPE_CHECKING:
    from pm.policies.model import Policy

log = get_logger()


class Table(Protocol):
    """What is asked of the policies (``pm.policies.globs.PolicyTable``)."""

    def match(self, cgroup: str, /) -> Policy | None: ...
    def direct(self, cgroup: str, /) -> Policy | None: ...
    def could_match_below(self, cgroup: str, /) -> bool: ...


OnChange = Callable[[str, str | None], None]
Follow = Callable[[Mapping[int, Place]], Awaitable[None]]


async def follow_nothing(places: Mapping[int, Place]) -> None:
    pass


class Selection:
    """Which policy owns a connection or a cgroup. Use it as an async context manager."""

    def __init__(
        self,
        table: Table,
        *,
        log_file: Path,
        keep: Callable[[], bool] = lambda: False,
        on_change: OnChange = lambda path, policy: None,
        follow: Follow = follow_nothing,
        cgroup_root: Path | None = None,
        bpffs: Path | None = None,
    ) -> None:
        """Raises SystemUnfit without cgroup2.

        ``log_file`` gets the compiler's or verifier's log when they refuse the program. ``keep`` is
        asked at the end whether the classifiers stay for the next start. ``on_change`` hears of each
        cgroup path and the policy attached to it from now on (None: no longer). ``cgroup_root`` and
        ``bpffs`` are found among the mounts if not given; without a bpffs nothing is pinned.
        """
        self._table = table
        self._log_file = log_file
        self._keep = keep
        self._on_change = on_change
        self._follow = follow
        self._root = cgroup_root or find_cgroup_root()
        self._bpffs = bpffs or find_mount("bpf")
        self._lock = asyncio.Lock()
        self._ids = CgroupIds(self._root)
        self._wanted: dict[int, str] = {}
        self._paths: dict[int, str] = {}
        self._policies: dict[str, Policy] = {}
        self.failures: dict[str, KernelRefused] = {}
        """Cgroup path -> why no classifier could be attached. Tried again on the next reload."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Compile, take over what an earlier service left, attach. Raises SystemUnfit, PmError."""
        if not self._bpffs:
            log.warning("bpffs_not_mounted", remedy="mount -t bpf bpf /sys/fs/bpf")
        async with AsyncExitStack() as stack:
            self._watcher = await stack.enter_async_context(CgroupWatcher(self._root))
            program = await compile_object(SOURCES / "classify.c", log_file=self._log_file)
            self._classifier = await asyncio.to_thread(
                Classifier.open, program, bpffs=self._bpffs, log_file=self._log_file
            )
            stack.push_async_callback(self._close)
            await self.apply(self._table)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _close(self) -> None:
        await asyncio.to_thread(self._classifier.close, keep=self._keep())

    async def run(self) -> None:
        """Follow the cgroups for ever. Raises PmError where they cannot be followed any more."""
        async for changes in self._watcher:
            async with self._lock:
                for path, cgroup_id in changes.removed.items():
                    self._forget(path, cgroup_id)
                for path, cgroup_id in changes.added.items():
                    if self._watcher.cgroups.get(path) == cgroup_id:  # a reload may know better by now
                        self._want(path, cgroup_id)
                await self._settle({*changes.removed.values(), *changes.added.values()})

    async def apply(self, table: Table) -> None:
        """Other policies, after a reload. Raises PmError where there are too many cgroups to follow."""
        async with self._lock:
            await self._watcher.rescan(table.could_match_below)
            self._table = table
            before = {*self._wanted, *self._classifier.attached}
            self._wanted, self._policies = {}, {}
            self.failures.clear()
            for path, cgroup_id in tuple(self._watcher.cgroups.items()):
                self._want(path, cgroup_id)
            await self._settle({*before, *self._wanted})
            self._classifier.unload_unused()

    # Questions

    def classify(self, local: str, local_port: int, remote: str, remote_port: int) -> Policy | None:
        """The policy whose classifier saw this initial subflow come up: asked once, then forgotten.

        The kernel tells of a session some microseconds before the classifier runs: a miss is worth
        another question when the next thing happens to the session.
        """
        name = self._classifier.take(local, local_port, remote, remote_port)
        return self._policies.get(name) if name is not None else None

    def policy_of_cgroup(self, cgroup_id: int) -> Policy | None:
        """The policy that owns the sockets of a cgroup, also where no classifier ran."""
        path = self.cgroup_path(cgroup_id)
        return self._table.match(path) if path else None

    def cgroup_path(self, cgroup_id: int) -> str | None:
        """None for a cgroup that is gone, or outside the cgroup2 mount."""
        return self._ids.path_of(cgroup_id)

    def attached(self) -> dict[str, str]:
        """Cgroup path -> policy whose classifier is attached there."""
        return {
            self._paths[cgroup_id]: policy
            for cgroup_id, policy in self._classifier.attached.items()
            if cgroup_id in self._paths
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

    def _forget(self, path: str, cgroup_id: int) -> None:
        self._wanted.pop(cgroup_id, None)
        self.failures.pop(path, None)

    async def _settle(self, cgroup_ids: set[int]) -> None:
        actions = plan_attachments(self._wanted, self._classifier.attached, cgroup_ids)
        directories = {c: directory_of(self._root, self._paths[c]) for c in cgroup_ids if c in self._paths}
        errors = await asyncio.to_thread(
            lambda: [perform(self._classifier, action, directories) for action in actions]
        )
        for action, error in zip(actions, errors, strict=True):
            self._report(action, error)
        for gone in cgroup_ids - self._wanted.keys() - self._classifier.attached.keys():
            self._paths.pop(gone, None)
        await self._follow(
            {
                cgroup_id: Place(path, directory_of(self._root, path), policy)
                for cgroup_id, policy in self._wanted.items()
                if (path := self._paths.get(cgroup_id))
            }
        )

    def _report(self, action: AttachmentAction, error: KernelRefused | None) -> None:
        path = self._paths.get(action.cgroup_id, "")
        policy = None if isinstance(action, Detach) else action.policy
        if error and error.errno == errno.ENOENT:
            return  # its removal is on the way
        if error:
            self.failures[path] = error
            log.warning("classifier_not_attached", cgroup=path, policy=policy, error=str(error))
        elif path:
            log.info("classifier_attached" if policy else "classifier_detached", cgroup=path, policy=policy)
            self._on_change(path, policy)
