# SPDX-License-Identifier: GPL-2.0-only
"""Compares the session table with the kernel: at start, after lost events, and every few seconds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from pm.clock import Clock
from pm.kernel import Diagnosis
from pm.sessions.behind_programs import BehindPrograms, NoPrograms
from pm.sessions.dump_merge import merge_dump
from pm.sessions.executor import Publish
from pm.sessions.history import HistoryEvent
from pm.sessions.policy_assignment import PolicyAssignment
from pm.sessions.preopened import FirstSubflows
from pm.sessions.session_table import SessionTable
from pm.sessions.timers import BATCH

AUDIT_INTERVAL_S = 5.0  # a look at 10,000 sessions costs about 40 ms, in slices


class Resync:
    def __init__(
        self,
        *,
        table: SessionTable,
        diagnosis: Diagnosis,
        first_subflows: FirstSubflows,
        assignment: PolicyAssignment,
        behind: BehindPrograms | NoPrograms,
        publish: Publish,
        counters: Counter[str],
        clock: Clock,
    ) -> None:
        self._table = table
        self._diagnosis = diagnosis
        self._first_subflows = first_subflows
        self._assignment = assignment
        self._behind = behind
        self._publish = publish
        self._counters = counters
        self._clock = clock

    def resync(self) -> None:
        """Make the table agree with sock_diag, and with the claims of the programs."""
        self.merge_dump()
        self._end_gone(self._behind.unknown_claims(self._table.by_token))

    def merge_dump(self) -> None:
        """Make the table agree with sock_diag."""
        now, table = self._clock.time(), self._table
        self._first_subflows.admit_all()
        self._first_subflows.disarm()
        merged = merge_dump(table, self._diagnosis.dump_subflows(), now)
        gone = self._end_gone([s.token for s in merged.sessions_missing])
        for session in merged.sessions_missing:
            if session.token not in gone:  # it lives on for a while without any subflow
                merged.subflows_missing.extend((session, s) for s in session.subflows)
        for session, subflow in merged.subflows_missing:
            if not self._diagnosis.subflow_exists(subflow):
                table.remove_subflow(session, subflow)
                session.history.add(now, HistoryEvent.SUBFLOW_GONE, subflow.pair)
        for session in merged.changed:
            self._assignment.find_cgroup(session)
        self._counters["resyncs"] += 1

    async def audit(self) -> None:
        """Run forever: drop sessions that ended without an event.

        The kernel sends no event for sessions that were reset (MP_FASTCLOSE) or never accepted: it
        has taken their token away before it would.
        """
        while True:
            await asyncio.sleep(AUDIT_INTERVAL_S)
            tokens = list(self._table.by_token)
            for first in range(0, len(tokens), BATCH):
                self._end_gone(tokens[first : first + BATCH])
                await asyncio.sleep(0)

    def end_session(self, token: int) -> None:
        """A session has ended: forget it, and tell the watchers if it was known."""
        now = self._clock.time()
        session = self._table.close(token)
        self._behind.forget(token)
        if session:
            self._publish(now, "session", "closed", session, {"age_s": round(now - session.created, 3)})

    def _end_gone(self, tokens: Sequence[int]) -> set[int]:
        """End those that the kernel does not know any more; their tokens."""
        infos = self._diagnosis.session_infos(tokens)
        gone = {token for token, info in zip(tokens, infos, strict=True) if info is None}
        for token in gone:
            self.end_session(token)
        return gone
