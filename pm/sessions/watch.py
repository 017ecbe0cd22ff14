# SPDX-License-Identifier: Apache-2.0
"""Looks at some sessions each second: those that just lost a path, and those with a suspect subflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from pm.clock import Clock, Scheduler, Timer, moment
from pm.errors import KernelRefused
from pm.kernel import SubflowRecord
from pm.kernel_protocols import Diagnosis
from pm.log_budget import get_limited_logger
from pm.model import Origin, Subflow, SubflowState, token_text
from pm.sessions.failures import note_failure
from pm.sessions.history import HistoryEvent
from pm.sessions.ledger import Ledger
from pm.sessions.liveness import is_suspect, look, note_rtt
from pm.sessions.session import Session
from pm.sessions.session_table import SessionTable
from pm.sessions.timers import BATCH

INTERVAL_S = 1.0
AFTER_LOSS_S = 30.0  # a promoted standby shows within this time whether it works
SUSPECT_S = 3.0
WATCHED_MAX = 1024  # at once; the others wait for the next comparison with the kernel

NO_DATA = "established, but no data gets through"

log = get_limited_logger()


class Watch:
    """``reconcile`` plans a session one of whose subflows got stuck or works again, or has another RTT.

    That is noted only for the path managers of ``follow_rtt``, by name.
    """

    def __init__(
        self,
        *,
        table: SessionTable,
        ledger: Ledger,
        diagnosis: Diagnosis,
        reconcile: Callable[[Session], None],
        follow_rtt: Collection[str] = (),
        counters: Counter[str],
        clock: Clock,
        scheduler: Scheduler,
    ) -> None:
        self._table = table
        self._ledger = ledger
        self._diagnosis = diagnosis
        self._reconcile = reconcile
        self._follow_rtt = follow_rtt
        self._counters = counters
        self._clock = clock
        self._scheduler = scheduler
        self._until: dict[int, float] = {}
        self._timer: Timer | None = None

    def after_loss(self, token: int) -> None:
        """A path of the session went away: what carries its data now must show that it can."""
        self._add(token, AFTER_LOSS_S)

    def suspect(self, token: int) -> None:
        """A subflow looks stuck: a second look decides."""
        self._add(token, SUSPECT_S)

    def cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._until.clear()

    def _add(self, token: int, duration_s: float) -> None:
        if token not in self._until and len(self._until) >= WATCHED_MAX:
            return
        until = self._clock.monotonic() + duration_s
        self._until[token] = max(until, self._until.get(token, 0.0))
        if self._timer is None:
            self._timer = self._scheduler.call_later(INTERVAL_S, self._look, ())

    def _look(self, tokens: tuple[int, ...]) -> None:
        """At the sessions of ``tokens``, a batch per turn of the loop; at all that are watched once empty."""
        tokens = tokens or tuple(self._until)
        now = self._clock.monotonic()
        for token in tokens[:BATCH]:
            session = self._table.get(token)
            if session is None or self._until[token] < now:
                del self._until[token]
            else:
                self._look_at(session)
        rest = tuple(t for t in tokens[BATCH:] if t in self._until)
        if rest:
            self._timer = self._scheduler.call_soon(self._look, rest)
        elif self._until:
            self._timer = self._scheduler.call_later(INTERVAL_S, self._look, ())
        else:
            self._timer = None

    def _look_at(self, session: Session) -> None:
        subflows = [s for s in session.subflows if s.state is SubflowState.ESTABLISHED]
        try:
            records = self._diagnosis.find_subflows(subflows)
        except KernelRefused as e:  # the next look may succeed
            log.warning("look_failed", about=session.token, token=token_text(session.token), error=str(e))
            return
        changed = [
            self.note(session, subflow, record)
            for subflow, record in zip(subflows, records, strict=True)
            if record
        ]
        if any(changed):
            self._reconcile(session)

    def note(self, session: Session, subflow: Subflow, record: SubflowRecord) -> bool:
        """What the kernel shows of a subflow at this moment; whether its session is to be planned again."""
        if subflow.state is not SubflowState.ESTABLISHED:
            return False
        self._ledger.note(session, subflow, record.figures)
        changed = look(subflow, record, self._clock.monotonic())
        if changed:
            what = HistoryEvent.SUBFLOW_STUCK if subflow.stuck else HistoryEvent.SUBFLOW_RECOVERED
            session.history.add(moment(self._clock), what, subflow.pair)
            self._counters[what] += 1
            if subflow.stuck and not subflow.carried and subflow.origin is Origin.POLICY:
                note_failure(session, subflow.pair, NO_DATA, self._clock.monotonic())
            log.info(what, about=session.token, token=token_text(session.token), subflow=subflow.id)
        if is_suspect(subflow):
            self.suspect(session.token)
        if self._follow_rtt and session.policy and session.policy.path_manager.name in self._follow_rtt:
            changed = note_rtt(subflow, record) or changed
        return changed
