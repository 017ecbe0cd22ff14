# SPDX-License-Identifier: Apache-2.0
"""The last figures of subflows, and the end of sessions whose subflows all have them.

A classifier reports what a subflow had carried when its socket is closed. That may be before the kernel's
events tell of its end, and long after: what the application wrote before it closed is still on its way
then. Where no classifier saw the socket, sock_diag is asked for as long as it shows it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pm.clock import Clock, EventLoop, Moment, Timer
from pm.errors import KernelRefused
from pm.kernel import FinalFigures, SessionInfo
from pm.kernel_protocols import Diagnosis, FinalFigureSource
from pm.log_budget import get_limited_logger
from pm.model import Figures, Subflow, SubflowState
from pm.sessions.closed_subflows import ClosedSubflow, ClosedSubflows, FigureSource
from pm.sessions.ledger import Ledger
from pm.sessions.session import Session
from pm.sessions.subflows import Ends, ends_of
from pm.sessions.timers import BATCH

READ_MAX = 256  # per turn of the loop: some milliseconds
KEPT_MAX = 16384  # figures that nobody has asked for yet, and subflows that have none yet
# The first check, then twice as long each time: two minutes in all, as long as the kernel keeps a FIN.
CHECK_S = 0.25
CHECKS = 9

WITH_THE_SESSION = "the session ended"

log = get_limited_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A session that is over. ``fallback`` is None where the kernel could not be asked any more.

    ``cgroup_id`` is 0 where it is unknown.
    """

    session: Session
    at: Moment
    reason: str
    fallback: bool | None
    cgroup_id: int
    cgroup: str | None


@dataclass(slots=True, eq=False)
class _Awaited:
    session: Session
    closed: ClosedSubflow
    checks: int = 0


class Endings:
    """Not thread-safe: everything runs in the event loop's thread. ``pm.sessions.assembly`` builds it."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        diagnosis: Diagnosis,
        finals: FinalFigureSource | None,
        cgroup_path: Callable[[int], str | None],
        clock: Clock,
        scheduler: EventLoop,
    ) -> None:
        """``finals`` is None where no classifier runs."""
        self._ledger = ledger
        self._diagnosis = diagnosis
        self._finals = finals
        self.on_ended: Callable[[Ended], None] | None = None
        """Hears of each session that is over and whose subflows have their last figures."""
        self._cgroup_path = cgroup_path
        self._clock = clock
        self._scheduler = scheduler
        self._early: dict[Ends, Figures] = {}
        self._awaited: dict[Ends, _Awaited] = {}
        self._checks: list[tuple[float, int, Ends, _Awaited]] = []
        self._order = itertools.count()
        self._timer: Timer | None = None
        self._ended: dict[int, Ended] = {}
        # What this turn of the loop has closed and ended: the kernel is asked once for all of it.
        self._closed: list[_Awaited] = []
        self._leaving: list[tuple[Session, str, Moment]] = []
        self._turn: Timer | None = None

    async def run(self) -> None:
        """Read what the classifiers report until cancelled; what is awaited then is over."""
        if self._finals:
            self._scheduler.add_reader(self._finals.fileno(), self._read)
        try:
            await asyncio.Event().wait()
        finally:
            if self._finals:
                self._scheduler.remove_reader(self._finals.fileno())
            if self._turn:
                self._turn.cancel()
            self._end_turn()
            for _ in range(KEPT_MAX // READ_MAX):
                if self._read():
                    break
            if self._timer:
                self._timer.cancel()
            for awaited in list(self._awaited.values()):
                self._settle(awaited)

    def subflow_closed(self, session: Session, subflow: Subflow, reason: str, now: Moment) -> None:
        """A subflow is out of the table. One that was never established has carried nothing."""
        if subflow.state is SubflowState.ESTABLISHED:
            self._add(session, subflow, reason, now)

    def session_ended(self, session: Session, reason: str, now: Moment) -> None:
        """A session is out of the table, with all the subflows that it had."""
        for subflow in session.subflows:
            if subflow.state is SubflowState.ESTABLISHED:
                self._add(session, subflow, WITH_THE_SESSION, now)
        self._leaving.append((session, reason, now))
        self._end_turn_soon()

    def _add(self, session: Session, subflow: Subflow, reason: str, now: Moment) -> None:
        if session.closed is None:
            session.closed = ClosedSubflows()
        self._ledger.interface_of(subflow)  # known now; its address may be gone soon
        closed = ClosedSubflow(subflow, now, reason)
        session.closed.add(closed)
        self._closed.append(_Awaited(session, closed))
        self._end_turn_soon()

    def _end_turn_soon(self) -> None:
        if self._turn is None:
            self._turn = self._scheduler.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn = None
        closed, self._closed = self._closed, []
        leaving, self._leaving = self._leaving, []
        if self.on_ended and leaving:
            self._describe(leaving)
        self._close(closed)
        for session, _, _ in leaving:
            self._look_whether_over(session)

    def _describe(self, leaving: Sequence[tuple[Session, str, Moment]]) -> None:
        infos: Sequence[SessionInfo | None] = [None] * len(leaving)
        try:
            infos = self._diagnosis.session_infos([session.token for session, _, _ in leaving])
        except KernelRefused as e:
            log.warning("question_refused", error=str(e), remedy="none needed: the records say less")
        for (session, reason, now), info in zip(leaving, infos, strict=True):
            cgroup_id = session.cgroup_id or (info.cgroup_id if info else 0)
            self._ended[session.number] = Ended(
                session=session,
                at=now,
                reason=reason,
                fallback=info.fallback if info else None,
                cgroup_id=cgroup_id,
                cgroup=self._cgroup_path(cgroup_id) if cgroup_id else None,
            )

    # What the classifiers report

    def _read(self) -> bool:
        """Take what waits, as much as one turn takes; whether nothing waits any more."""
        if self._finals is None:
            return True
        try:
            found = self._finals.read_finals(READ_MAX)
        except KernelRefused as e:
            log.warning("final_figures_not_read", error=str(e), remedy="none needed: sock_diag is asked")
            return True
        for final in found:
            self._take(final)
        return len(found) < READ_MAX

    def _take(self, final: FinalFigures) -> None:
        ends = final[:4]
        if awaited := self._awaited.get(ends):
            self._settle(awaited, final.figures)
            return
        self._early.pop(ends, None)  # of another socket that had these ports
        self._early[ends] = final.figures
        if len(self._early) > KEPT_MAX:
            del self._early[next(iter(self._early))]

    # What is awaited

    def _close(self, some: Sequence[_Awaited]) -> None:
        self._read()
        late = []
        for awaited in some:
            if figures := self._early.pop(ends_of(awaited.closed.subflow), None):
                self._settle(awaited, figures)
            else:
                late.append(awaited)
        self._sample(late)
        for awaited in late:
            self._await(awaited)

    def _await(self, awaited: _Awaited) -> None:
        ends = ends_of(awaited.closed.subflow)
        if former := self._awaited.get(ends):
            self._settle(former)
        if len(self._awaited) >= KEPT_MAX:
            self._settle(next(iter(self._awaited.values())))
        self._awaited[ends] = awaited
        self._check_later(ends, awaited)

    def _check_later(self, ends: Ends, awaited: _Awaited) -> None:
        due = self._clock.monotonic() + CHECK_S * 2**awaited.checks
        awaited.checks += 1
        heapq.heappush(self._checks, (due, next(self._order), ends, awaited))
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is None and self._checks:
            self._timer = self._scheduler.call_at(self._checks[0][0], self._check)

    def _check(self) -> None:
        """Whether sockets are gone whose figures no classifier reports; a batch per turn of the loop."""
        self._timer = None
        now = self._clock.monotonic()
        due: list[tuple[Ends, _Awaited]] = []
        while self._checks and self._checks[0][0] <= now and len(due) < BATCH:
            _, _, ends, awaited = heapq.heappop(self._checks)
            if self._awaited.get(ends) is awaited:
                due.append((ends, awaited))
        there = self._sample([awaited for _, awaited in due])
        all_read = self._read()  # what was closed before we looked has been reported
        for (ends, awaited), is_there in zip(due, there, strict=True):
            if self._awaited.get(ends) is not awaited:
                continue
            if (all_read and not is_there) or awaited.checks >= CHECKS:
                self._settle(awaited)
            else:
                self._check_later(ends, awaited)
        self._schedule()

    def _sample(self, some: Sequence[_Awaited]) -> Sequence[bool]:
        """Note what sock_diag shows; which of the sockets it still has."""
        try:
            records = self._diagnosis.find_subflows([awaited.closed.subflow for awaited in some])
        except KernelRefused as e:
            log.warning("question_refused", error=str(e), remedy="none needed: it is asked again soon")
            return [True] * len(some)
        there = []
        for awaited, record in zip(some, records, strict=True):
            found = record is not None and record.token == awaited.session.token
            there.append(found)
            if record and found:
                self._ledger.note(awaited.session, awaited.closed.subflow, record.figures)
        return there

    def _settle(self, awaited: _Awaited, figures: Figures | None = None) -> None:
        """``figures`` are what a classifier reported."""
        closed, session = awaited.closed, awaited.session
        ends = ends_of(closed.subflow)
        if self._awaited.get(ends) is awaited:
            del self._awaited[ends]
        if figures:
            self._ledger.note(session, closed.subflow, figures)
            closed.source = FigureSource.KERNEL
        closed.settled = True
        self._look_whether_over(session)

    def _look_whether_over(self, session: Session) -> None:
        if session.number in self._ended and all(closed.settled for closed in session.closed or ()):
            ended = self._ended.pop(session.number)
            if self.on_ended:
                self.on_ended(ended)
