# SPDX-License-Identifier: Apache-2.0
"""Compares the session table with the kernel: at the start, after lost events, and again and again.

A comparison goes on in slices, between events, so nobody waits for it. What it finds different may
have been overtaken meanwhile: the kernel is asked once more, about that subflow or session alone,
before the table is changed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from typing import TypeVar

from pm.clock import Clock, Moment, Scheduler, Timer, moment
from pm.errors import KernelRefused
from pm.kernel import SubflowRecord
from pm.kernel_protocols import Diagnosis
from pm.log_budget import get_limited_logger
from pm.model import Origin, Subflow, SubflowState
from pm.sessions.backoff import ASK_AGAIN_S
from pm.sessions.behind_programs import BehindPrograms, NoPrograms
from pm.sessions.dump_merge import find_known, may_deny_joins, merge_session, remove_gone
from pm.sessions.endings import Endings
from pm.sessions.executor import Publish
from pm.sessions.ledger import Ledger
from pm.sessions.policy_assignment import PolicyAssignment
from pm.sessions.preopened import FirstSubflows
from pm.sessions.session import Session, join_counter
from pm.sessions.session_notes import SessionName, name_of
from pm.sessions.session_table import SessionTable
from pm.sessions.timers import BATCH
from pm.sessions.watch import Watch

INTERVAL_S = 5.0
INTERVAL_CAP_S = 45.0
SHARE = 0.015  # of one processor, for comparing all the time ...
URGENT_SHARE = 0.1  # ... and when somebody asks for it: a peer can be the cause

CLOSED = "closed"
RESET = "reset, or never accepted"

T = TypeVar("T")
log = get_limited_logger()


class Resync:
    def __init__(
        self,
        *,
        table: SessionTable,
        ledger: Ledger,
        endings: Endings,
        diagnosis: Diagnosis,
        first_subflows: FirstSubflows,
        assignment: PolicyAssignment,
        behind: BehindPrograms | NoPrograms,
        watch: Watch,
        denied: Collection[SessionName],
        on_denied: Callable[[Session], None],
        reconcile: Callable[[Session], None],
        on_joins: Callable[[Session, Sequence[Subflow]], None],
        on_compared: Callable[[int], None],
        publish: Publish,
        counters: Counter[str],
        clock: Clock,
        scheduler: Scheduler,
    ) -> None:
        """``reconcile`` plans a session that has changed.

        ``denied`` are sessions whose peer refuses joins to its initial address, as an earlier run noted;
        ``on_denied`` hears of each session that may be one when it comes and when it goes.
        ``on_joins`` gets the peer's subflows that no event told of, and
        ``on_compared`` the number of each comparison when it is over.
        """
        self._table = table
        self._ledger = ledger
        self._endings = endings
        self._diagnosis = diagnosis
        self._first_subflows = first_subflows
        self._assignment = assignment
        self._behind = behind
        self._watch = watch
        self._denied = denied
        self._on_denied = on_denied
        self._reconcile = reconcile
        self._on_joins = on_joins
        self._on_compared = on_compared
        self._publish = publish
        self._counters = counters
        self._clock = clock
        self._scheduler = scheduler
        self._number = 0
        self._running: Iterator[None] | None = None
        self._cost_s = 0.0
        self._ended_at = float("-inf")
        self._urgent = False
        self._timer: Timer | None = None
        self.compared = asyncio.Event()
        """Set once the first comparison is over."""

    # When

    def request(self) -> int:
        """Compare soon; the number of the comparison that will have begun after this."""
        self._urgent = True
        if self._running is None:
            self._begin_at(self._ended_at + self._cost_s / URGENT_SHARE)
        return self._number + 1

    def cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._running = None

    def _begin_at(self, when: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._scheduler.call_at(max(when, self._clock.monotonic()), self._begin)

    def _begin(self) -> None:
        self._urgent = False
        self._cost_s = 0.0
        self._running = self._compare()
        self._step()

    def _step(self) -> None:
        """One slice."""
        assert self._running is not None
        before = self._clock.monotonic()
        try:
            more = next(self._running, self) is None
        except KernelRefused as e:
            self._counters["comparisons_failed"] += 1
            log.warning("comparison_failed", error=str(e), remedy="none needed: it is done again soon")
            self._running = None
            self._begin_at(self._clock.monotonic() + ASK_AGAIN_S)
            return
        self._cost_s += self._clock.monotonic() - before
        if more:
            self._timer = self._scheduler.call_soon(self._step)
        else:
            self._end()

    def _end(self) -> None:
        self._running = None
        self._ended_at = self._clock.monotonic()
        self.compared.set()
        self._counters["resyncs"] += 1
        pause_s = min(max(self._cost_s / SHARE, INTERVAL_S), INTERVAL_CAP_S)
        self._begin_at(self._ended_at + (self._cost_s / URGENT_SHARE if self._urgent else pause_s))
        self._on_compared(self._number)

    # What

    def _compare(self) -> Iterator[None]:
        self._number += 1
        began = self._clock.monotonic()
        doubtful: dict[int, list[SubflowRecord]] = {}
        for part in self._diagnosis.dump_subflows():
            for record in part:
                if record.is_live and not self._look(record):
                    doubtful.setdefault(record.token, []).append(record)
            yield
        # The initial subflow first: a session is adopted from it.
        records = [r for group in doubtful.values() for r in sorted(group, key=lambda r: not r.is_initial)]
        for batch in _batches(records):
            self._merge(batch)
            yield
        opening: list[tuple[Session, Subflow]] = []
        for sessions in _batches(list(self._table)):
            opening += yield from self._look_for_missing(sessions, began)
            yield
        if opening:
            yield from self._remove_unless_opening(opening)
        for tokens in _batches(self._behind.unknown_claims(self._table.by_token)):
            self._end_gone(tokens)
            yield

    def _look(self, record: SubflowRecord) -> bool:
        """Whether the table has the subflow just so."""
        session = self._table.get(record.token)
        subflow = session and find_known(session, record, self._number)
        if not session or not subflow:
            return False
        if self._watch.note(session, subflow, record):
            self._reconcile(session)
        return True

    def _merge(self, records: Sequence[SubflowRecord]) -> None:
        """Take subflows and their sessions into the table as they are now."""
        found: dict[int, list[SubflowRecord]] = {}
        for record in self._diagnosis.find_subflows(records):
            if record and record.is_live and record.token:
                found.setdefault(record.token, []).append(record)
        now = moment(self._clock)
        for token, there in found.items():
            self._first_subflows.admit(token)
            adopted = token not in self._table.by_token
            session, changed, new = merge_session(self._table, there, self._number, now)
            self._note_figures(session, there, adopted=adopted)
            if adopted:
                session.deny_join_id0 = name_of(session) in self._denied or may_deny_joins(session)
                self._on_denied(session)
            self._on_joins(session, [s for s in new if s.origin is Origin.PEER])
            if changed:
                self._counters["audit_repairs"] += self._number > 1  # the first one takes over
                self._first_subflows.forget(token)  # what is armed may be done already
                self._assignment.find_cgroup(session)
                self._reconcile(session)

    def _note_figures(self, session: Session, records: Sequence[SubflowRecord], *, adopted: bool) -> None:
        note = self._ledger.adopt if adopted else self._ledger.note
        for record in records:
            if subflow := session.subflows.find_end(record):
                note(session, subflow, record.figures)

    def _look_for_missing(
        self, sessions: Sequence[Session], began: float
    ) -> Generator[None, None, list[tuple[Session, Subflow]]]:
        """Remove subflows and sessions that the kernel does not have; those still opening are returned."""
        unseen = {
            session.token: (session, [s for s in session.subflows if s.seen != self._number])
            for session in sessions
            if self._table.get(session.token) is session
        }
        ended = self._end_gone([t for t, (session, lost) in unseen.items() if lost or not session.subflows])
        missing = [
            (session, subflow)
            for token, (session, subflows) in unseen.items()
            if token not in ended
            for subflow in subflows
            if subflow.since < began
        ]
        for known in _batches((session, subflow) for session, subflow in missing if subflow.local_port):
            records = self._diagnosis.find_subflows([subflow for _, subflow in known])
            self._remove(
                [pair for pair, record in zip(known, records, strict=True) if not (record and record.is_live)]
            )
            yield
        return [(session, subflow) for session, subflow in missing if not subflow.local_port]

    def _remove_unless_opening(self, subflows: Sequence[tuple[Session, Subflow]]) -> Iterator[None]:
        """The kernel drops a subflow in SYN_SENT without an event when the peer withdraws its address."""
        there = set()
        for part in self._diagnosis.dump_subflows(opening=True):
            there |= {(record.token, record.pair) for record in part}
            yield
        self._remove(
            [
                (session, subflow)
                for session, subflow in subflows
                if not subflow.local_port and (session.token, subflow.pair) not in there
            ]
        )

    def _remove(self, gone: Sequence[tuple[Session, Subflow]]) -> None:
        now = moment(self._clock)
        for session, subflow in gone:
            if subflow in session.subflows:
                self._counters["audit_repairs"] += 1
                if subflow.state is SubflowState.OPENING:
                    self._counters[join_counter("dropped")] += 1
                remove_gone(self._table, session, subflow, now)
        for session in dict.fromkeys(session for session, _ in gone):
            self._reconcile(session)

    def end_session(self, token: int, now: Moment, reason: str = CLOSED) -> None:
        """A session has ended: forget it, and tell the watchers if it was known."""
        session = self._table.close(token)
        self._behind.forget(token)
        if session:
            self._on_denied(session)
            self._endings.session_ended(session, reason, now)
            age_s = round(now.monotonic - session.created.monotonic, 3)
            self._publish(now.time, "session", "closed", session, {"age_s": age_s})

    def _end_gone(self, tokens: Sequence[int]) -> set[int]:
        """End those that the kernel does not know any more; their tokens.

        It sends no event for sessions that were reset (MP_FASTCLOSE) or never accepted: it has taken
        their token away before it would.
        """
        infos = self._diagnosis.session_infos(tokens)
        gone = {token for token, info in zip(tokens, infos, strict=True) if info is None}
        now = moment(self._clock)
        for token in gone:
            self._counters["audit_repairs"] += token in self._table.by_token
            self.end_session(token, now, RESET)
            self._behind.release(token)
        return gone


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    everything = list(items)
    for first in range(0, len(everything), BATCH):
        yield everything[first : first + BATCH]
