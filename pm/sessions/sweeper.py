# SPDX-License-Identifier: Apache-2.0
"""Has every session planned again when something beside it changes: a policy, an address, a route."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from pm.clock import Clock
from pm.model import Endpoint, LocalAddress, SubflowState
from pm.sessions.backoff import retry_early
from pm.sessions.endpoint_book import EndpointBook, after_change
from pm.sessions.event_reader import EventReader
from pm.sessions.executor import Executor
from pm.sessions.failures import forget_failures
from pm.sessions.ledger import Ledger
from pm.sessions.local_addresses import AddressBook
from pm.sessions.policy_assignment import PolicyAssignment
from pm.sessions.preopened import FirstSubflows
from pm.sessions.reconciler import Reconciler
from pm.sessions.resync import Resync
from pm.sessions.session_table import SessionTable
from pm.sessions.timers import Slice, TimerQueue
from pm.sessions.watch import Watch


class Sweeper:
    """Not thread-safe: everything runs in the event loop's thread. ``pm.sessions.assembly`` builds it."""

    def __init__(
        self,
        *,
        table: SessionTable,
        ledger: Ledger,
        executor: Executor,
        first_subflows: FirstSubflows,
        assignment: PolicyAssignment,
        resync: Resync,
        timers: TimerQueue,
        watch: Watch,
        addresses: AddressBook,
        endpoints: EndpointBook,
        reconciler: Reconciler,
        clock: Clock,
    ) -> None:
        self._table = table
        self._ledger = ledger
        self._executor = executor
        self._first_subflows = first_subflows
        self._assignment = assignment
        self._resync = resync
        self._timers = timers
        self._watch = watch
        self._addresses = addresses
        self._endpoints = endpoints
        self._reconciler = reconciler
        self._clock = clock
        self._sweep = asyncio.Event()
        self._sweep_after = 0
        self._sweep_all = False

    # Running

    async def run(self, events: EventReader) -> None:
        """Follow the kernel until cancelled."""
        # Subscribed first, so that nothing is missed between the comparison and the events.
        events.start()
        try:
            self.resync()
            while True:
                await self._sweep.wait()
                self._sweep.clear()
                changed = await self._ask_for_ways()
                if changed or self._sweep_all:
                    self._sweep_all = False
                    await self._reconcile_all()
        finally:
            try:
                events.stop()
            finally:
                self._resync.cancel()
                self._timers.cancel()
                self._watch.cancel()
                self._first_subflows.cancel()
                self._assignment.cancel()
                self._endpoints.cancel()

    def resync(self) -> None:
        """Compare the table with the kernel, and reconcile every session then."""
        self._first_subflows.disarm()  # what is armed may be done already
        self._sweep_after = self._resync.request()

    def compared(self, number: int) -> None:
        """The table agrees with the kernel."""
        if self._sweep_after and number >= self._sweep_after:
            self._sweep_after = 0
            self._sweep_soon()

    # Policies and local addresses

    def policies_changed(self) -> None:
        """After a reload: every session gets the policy that its cgroup has now."""
        self._first_subflows.admit_all()
        self._first_subflows.forget_remembered()
        self._assignment.assign_all()
        self._judge_remotes()
        self._addresses.ask_again()
        self._sweep_soon()

    def _judge_remotes(self) -> None:
        for session in self._table:
            if session.remotes or session.refused_remotes:
                self._table.judge_remotes(session)

    def addresses_changed(self, addresses: Sequence[LocalAddress]) -> None:
        """Replace the local addresses and reconcile every session soon."""
        changes = self._addresses.update(addresses)
        if self._ledger.set_addresses(addresses):
            for session in self._table:
                for subflow in session.subflows:
                    self._ledger.move(subflow)
        self._judge_remotes()
        self._first_subflows.forget_remembered()
        opening = False
        for session in self._table:
            for pair in [p for p in session.failing if p.local in changes.returned]:
                forget_failures(session, pair)
            opening = opening or any(s.local in changes.lost and not s.local_port for s in session.subflows)
        if opening:
            # A comparison tells the source ports of subflows still opening: without it they could not
            # be closed, and their SYN's backoff would delay the next try by a minute.
            self._sweep_after = self._resync.request()
        self._sweep_soon()

    def endpoints_changed(self, gone: Sequence[Endpoint], flags: Mapping[str, bool]) -> None:
        """``ip mptcp`` changed: do what the kernel would, at once, and plan every session soon."""
        self._first_subflows.forget_remembered()
        for session in self._table if gone or flags else ():
            policy = self._endpoints.in_force(session)
            if session.managed and policy and policy is not session.policy:
                for action in after_change(session, gone, flags, session.announced or {}):
                    self._executor.perform(session, action)
        self._sweep_soon()

    def routes_changed(self) -> None:
        """What could not be opened may be possible now, and an address on no interface may be lost.

        Only such sessions are looked at, and all only where a way has changed that one of them knows: routes
        change all the time where a routing daemon runs.
        """
        self._addresses.ask_again()
        self._endpoints.forget_sources()
        now, interfaces = self._clock.monotonic(), self._addresses.current.interfaces
        for session in self._table:
            for retry in (session.retries or {}).values():
                if not retry.refused and now < retry.not_before:
                    retry_early(retry, now)
                    self._timers.add(retry.not_before, session.token)
            if session.local not in interfaces:
                self._timers.add(now, session.token)
        self._sweep.set()

    async def _ask_for_ways(self) -> bool:
        """Ask again by which ways packets leave; whether any has changed."""
        routes = self._addresses.current.routes
        turn = Slice(self._clock)
        for destination in routes.outdated():
            routes.ways_to(destination)
            if turn.is_over():
                await asyncio.sleep(0)
                turn = Slice(self._clock)
        if not routes.take_changed():
            return False
        self._first_subflows.forget_remembered()
        if any(s.state is SubflowState.OPENING and not s.local_port for t in self._table for s in t.subflows):
            # One that opens over the wrong interface can be closed once its source port is known.
            self._sweep_after = self._resync.request()
        return True

    def _sweep_soon(self) -> None:
        self._sweep_all = True
        self._sweep.set()

    async def _reconcile_all(self) -> None:
        turn = Slice(self._clock)
        for session in list(self._table):
            self._reconciler.reconcile(session)
            if turn.is_over():
                await asyncio.sleep(0)
                turn = Slice(self._clock)
