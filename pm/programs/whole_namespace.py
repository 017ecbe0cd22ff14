# SPDX-License-Identifier: Apache-2.0
"""Selection by network namespace: the policy for ``/`` owns every session, and nothing is attached.

It needs neither BPF nor a cgroup tree.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pm.linux.bpf.pins import pin_directory, unpin_all
from pm.linux.host.cgroups import CgroupIds
from pm.linux.host.netns import netns_cookie
from pm.log import get_logger
from pm.programs.attach import MatchedCgroup, OnChange
from pm.programs.classifiers import Selection, Table
from pm.sessions.policy_assignment import Classified

if TYPE_CHECKING:
    from pm.policies.model import Policy

log = get_logger()


class NamespaceSelection:
    """Has what ``pm.programs.classifiers.Selection`` has."""

    attachments = None

    def __init__(self, *, on_change: OnChange, ids: CgroupIds | None) -> None:
        """``ids`` names cgroups for display; None where only our own can be seen."""
        self._on_change = on_change
        self._ids = ids
        self._policy: Policy | None = None

    async def run(self) -> None:
        """There is nothing to follow."""

    async def apply(self, table: Table) -> None:
        """Let these policies be in force: the one for ``/`` owns all, the others nothing."""
        former, self._policy = self._policy, table.direct("/")
        if idle := [policy.name for policy in table.policies if policy != self._policy]:
            log.warning(
                "policies_without_sessions",
                policies=idle,
                reason="`selection: namespace`: only the policy for `/` has sessions",
            )
        name = self._policy.name if self._policy else None
        if name != (former.name if former else None):
            self._on_change("/", name)

    @asynccontextmanager
    async def steady(self) -> AsyncIterator[dict[int, MatchedCgroup]]:
        """No cgroup has programs."""
        yield {}

    async def sweep(self) -> None:
        """No removed cgroup has programs."""

    def classify(self, local: str, local_port: int, remote: str, remote_port: int) -> Classified | None:
        return Classified(self._policy, None) if self._policy else None

    def policy_of_cgroup(self, cgroup_id: int) -> Policy | None:
        return self._policy

    def policy_at(self, path: str) -> Policy | None:
        return self._policy

    def cgroup_path(self, cgroup_id: int) -> str | None:
        """None also where no cgroup but our own can be seen."""
        return self._ids.path_of(cgroup_id) if self._ids else None

    def attached(self) -> dict[str, str]:
        """``/`` stands for the whole namespace."""
        return {"/": self._policy.name} if self._policy else {}

    def counters(self) -> dict[str, int]:
        return {}


def remove_all_programs(bpffs: Path | None) -> None:
    """Detach what a service that selected by cgroup left pinned in this network namespace."""
    if bpffs and unpin_all(pin_directory(bpffs, netns_cookie())):
        log.info("programs_removed", reason="`selection: namespace` is in force")


AnySelection = Selection | NamespaceSelection
