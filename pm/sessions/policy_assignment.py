# SPDX-License-Identifier: Apache-2.0
"""Which policy each session has: from the classifier's map, or from its cgroup where no classifier ran."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol

from pm.clock import Clock, Moment, Scheduler, Timer, moment
from pm.errors import KernelRefused
from pm.kernel_protocols import Diagnosis
from pm.log_budget import get_limited_logger
from pm.policies.model import Policy
from pm.sessions.backoff import ASK_AGAIN_S
from pm.sessions.history import HistoryEvent
from pm.sessions.session import Session
from pm.sessions.session_table import SessionTable
from pm.sessions.timers import BATCH

NAMING_DELAY_S = 0.05  # lets the hot path of a burst go first

log = get_limited_logger()


class Classified(NamedTuple):
    """What the classifier saw of a session's initial socket: its policy, its device and its mark.

    ``device`` is None where no classifier looked.
    """

    policy: Policy
    device: int | None = 0
    mark: int = 0


class Selector(Protocol):
    """Which policy owns a connection or a cgroup."""

    def classify(self, local: str, local_port: int, remote: str, remote_port: int) -> Classified | None:
        """What the classifier in the socket's cgroup recorded; None where it recorded nothing."""

    def policy_of_cgroup(self, cgroup_id: int) -> Policy | None: ...

    def cgroup_path(self, cgroup_id: int) -> str | None: ...


class PolicyAssignment:
    def __init__(
        self,
        *,
        table: SessionTable,
        selector: Selector,
        diagnosis: Diagnosis,
        reconcile: Callable[[Session], None],
        serves_unowned: Callable[[], bool],
        clock: Clock,
        scheduler: Scheduler,
    ) -> None:
        """``reconcile`` plans a session whose policy was found late.

        ``serves_unowned``: the service plans sessions that no policy owns.
        """
        self._table = table
        self._selector = selector
        self._diagnosis = diagnosis
        self._reconcile = reconcile
        self._serves_unowned = serves_unowned
        self._clock = clock
        self._scheduler = scheduler
        self._unnamed: list[int] = []
        self._timer: Timer | None = None

    def assign(self, session: Session, policy: Policy | None, now: Moment) -> bool:
        """False where nothing changes."""
        changed = session.take_policy(policy)
        session.unowned = session.unowned and policy is None
        if changed and policy:
            session.history.add(now, HistoryEvent.POLICY, policy.name)
        return changed

    def assign_all(self) -> None:
        """After a reload: every session gets the policy that its cgroup has now."""
        now = moment(self._clock)
        for session in self._table:
            if not session.cgroup_id:
                with suppress(KernelRefused):  # it stays as it is
                    self.find_cgroup(session)
            self.assign(session, self._selector.policy_of_cgroup(session.cgroup_id), now)
            session.unowned = session.policy is None and self._serves_unowned()

    def find_cgroup_later(self, token: int) -> None:
        if not self._unnamed:
            self._timer = self._scheduler.call_later(NAMING_DELAY_S, self._find_batch)
        self._unnamed.append(token)

    def find_cgroup(self, session: Session) -> None:
        """Ask the kernel for a session's cgroup: for display, and where no classifier ran.

        A process can connect before the classifier is attached to its cgroup; the cgroup's id names
        the policy all the same.
        """
        if not session.cgroup_id:
            (figures,) = self._diagnosis.session_infos((session.token,))
            session.cgroup_id = figures.cgroup_id if figures else 0
            if figures is None:
                return  # it has ended
        self._take_cgroup(session)

    def _take_cgroup(self, session: Session) -> None:
        # Asked also where it is known: the selector remembers the cgroup, which may be removed.
        policy = self._selector.policy_of_cgroup(session.cgroup_id)
        if session.policy is not None:
            return
        known, session.unowned = session.unowned, policy is None and self._serves_unowned()
        if self.assign(session, policy, moment(self._clock)) or session.unowned > known:
            self._reconcile(session)

    def cancel(self) -> None:
        """Look for no cgroups any more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._unnamed.clear()

    def _find_batch(self) -> None:
        batch, self._unnamed = self._unnamed[:BATCH], self._unnamed[BATCH:]
        if self._unnamed:
            self._timer = self._scheduler.call_soon(self._find_batch)
        sessions = [session for token in batch if (session := self._table.get(token))]
        try:
            infos = self._diagnosis.session_infos([session.token for session in sessions])
        except KernelRefused as e:
            log.warning("question_refused", error=str(e), sessions=len(sessions))
            for session in sessions:
                self._scheduler.call_later(ASK_AGAIN_S, self.find_cgroup_later, session.token)
            return
        for session, info in zip(sessions, infos, strict=True):
            if info:
                session.cgroup_id = session.cgroup_id or info.cgroup_id
                self._take_cgroup(session)
