# SPDX-License-Identifier: GPL-2.0-only
"""Makes every session have the subflows its policy wants, whatever changes: policies, addresses, routes.

``event_handler`` says what kernel events change. What can wait (retries, thresholds) waits in the timers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from pm.clock import Clock, moment
from pm.errors import KernelRefused
from pm.kernel import Diagnosis
from pm.log_budget import get_limited_logger
from pm.model import Endpoint, LocalAddress, Origin, Pair, SubflowState, token_text
from pm.policies.model import Policy
from pm.policies.rates import Rate
from pm.sessions.actions import Action, Announce, Close, Open, Plan, SetBackup, Withdraw
from pm.sessions.admission import wait_for_age, wait_for_bytes
from pm.sessions.backoff import ASK_AGAIN_S, retry_early
from pm.sessions.behind_programs import BehindPrograms, NoPrograms
from pm.sessions.endpoint_book import EndpointBook, after_change
from pm.sessions.event_reader import EventReader
from pm.sessions.executor import Executor
from pm.sessions.failures import forget_failures, forget_halves, forget_what_works
from pm.sessions.history import HistoryEvent
from pm.sessions.local_addresses import AddressBook
from pm.sessions.open_limits import OpenLimits
from pm.sessions.plan import Chooser, plan
from pm.sessions.policy_assignment import PolicyAssignment
from pm.sessions.preopened import FirstSubflows
from pm.sessions.resync import Resync
from pm.sessions.session import Session, SessionState
from pm.sessions.session_table import SessionTable
from pm.sessions.timers import BATCH, TimerQueue
from pm.sessions.watch import Watch

# Of a session, as fast as its peer causes events: each looks at all of its subflows.
PLANS_FOR_EVENTS = Rate(per_second=10, burst=20)

log = get_limited_logger()


class Reconciler:
    """Not thread-safe: everything runs in the event loop's thread. ``pm.sessions.assembly`` builds it."""

    def __init__(
        self,
        *,
        table: SessionTable,
        diagnosis: Diagnosis,
        executor: Executor,
        first_subflows: FirstSubflows,
        assignment: PolicyAssignment,
        behind: BehindPrograms | NoPrograms,
        open_limits: OpenLimits,
        resync: Resync,
        timers: TimerQueue,
        watch: Watch,
        addresses: AddressBook,
        endpoints: EndpointBook,
        path_managers: Mapping[str, Chooser],
        counters: Counter[str],
        clock: Clock,
    ) -> None:
        self._table = table
        self._diagnosis = diagnosis
        self._executor = executor
        self._first_subflows = first_subflows
        self._assignment = assignment
        self._behind = behind
        self._open_limits = open_limits
        self._resync = resync
        self._timers = timers
        self._watch = watch
        self._addresses = addresses
        self._endpoints = endpoints
        self._path_managers = path_managers
        self._counters = counters
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
            events.stop()
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
        for i, destination in enumerate(routes.outdated()):
            routes.ways_to(destination)
            if i % BATCH == BATCH - 1:
                await asyncio.sleep(0)
        if not routes.take_changed():
            return False
        self._first_subflows.forget_remembered()
        if any(s.state is SubflowState.OPENING and not s.local_port for t in self._table for s in t.subflows):
            # One that opens over the wrong interface can be closed once its source port is known.
            self._sweep_after = self._resync.request()
        return True

    # Deciding and doing

    def _sweep_soon(self) -> None:
        self._sweep_all = True
        self._sweep.set()

    async def _reconcile_all(self) -> None:
        for i, session in enumerate(list(self._table)):
            self.reconcile(session)
            if i % BATCH == BATCH - 1:
                await asyncio.sleep(0)

    def reconcile_token(self, token: int) -> None:
        """``reconcile`` of a session that may have ended meanwhile."""
        if session := self._table.get(token):
            self.reconcile(session)

    def reconcile_for_event(self, session: Session, now: float) -> None:
        """``reconcile``, now or soon."""
        if PLANS_FOR_EVENTS.room(session.plans_full_at, now):
            self.reconcile(session)
        else:
            self._timers.add(PLANS_FOR_EVENTS.next_at(session.plans_full_at), session.token)

    def reconcile(self, session: Session) -> None:
        """Plan one session and perform the plan."""
        try:
            self._reconcile(session)
        except KernelRefused as e:
            self._counters["questions_refused"] += 1
            log.warning(
                "question_refused", about=session.token, token=token_text(session.token), error=str(e)
            )
            self._timers.add(self._clock.monotonic() + ASK_AGAIN_S, session.token)

    def _reconcile(self, session: Session) -> None:
        policy = self._endpoints.in_force(session)
        if policy is None or session.state is not SessionState.ESTABLISHED:
            return
        if session.device is None:
            self._find_device(session)
        now = self._clock.monotonic()
        waiting = not session.started and not self._start(session, policy, now)
        if waiting and session.local not in self._addresses.current.lost:
            return
        if session.retries:
            forget_what_works(session, now)
        session.plans_full_at = PLANS_FOR_EVENTS.take(session.plans_full_at, now, 1)
        path_manager = self._path_managers[policy.path_manager.name]
        made = plan(session, path_manager, self._endpoints.addresses(policy), now, policy)
        actions = self._behind.defer_opens(session, policy, made.actions)
        actions, look_at = self._open_limits.admit(session, policy, actions, now)
        if look_at is not None:
            made.look_again(look_at)
        failed: set[Pair] = set()
        for action in actions:
            if isinstance(action, Open) and action.pair in failed:
                continue  # those of one pair fail together
            if self._perform(session, action, made) and isinstance(action, Open):
                failed.add(action.pair)
        if made.look_at is not None:
            self._timers.add(made.look_at, session.token)

    def _find_device(self, session: Session) -> None:
        """No classifier saw the session: the initial subflow's socket tells what it is bound to."""
        initial = [s for s in session.subflows if s.origin is Origin.INITIAL]
        (found, *_) = [*self._diagnosis.find_subflows(initial), None]
        self._table.socket_known(session, found.ifindex if found else 0, found.mark if found else 0)

    def _perform(self, session: Session, action: Action, made: Plan) -> bool:
        """Whether it was refused."""
        refused = self._executor.perform(session, action)
        match action:
            case Open() if refused and session.retries and action.pair in session.retries:
                made.look_again(session.retries[action.pair].not_before)
            case Announce() | Withdraw() if refused and session.address_retries:
                if retry := session.address_retries.get(action.ip):
                    made.look_again(retry.not_before)
            case Withdraw(announce_first=True):
                forget_halves(session, action.ip)
                made.look_again(self._clock.monotonic())
            case Close() if action.subflow.stuck:
                retry = session.retries.get(action.subflow.pair) if session.retries else None
                if retry and retry.refused:  # the peer has room again: what it refused need not wait
                    forget_failures(session, action.subflow.pair)
                made.look_again(self._clock.monotonic())
            case SetBackup(backup=False):
                self._watch.after_loss(session.token)
        return refused is not None

    def _start(self, session: Session, policy: Policy, now: float) -> bool:
        """Whether the session has reached the policy's thresholds; it is looked at again if not."""
        assert session.established
        age_s, start = now - session.established.monotonic, policy.start
        wait_s = wait_for_age(start, age_s)
        if not wait_s and start.after_bytes:
            moved = self._diagnosis.bytes_moved(session.token, session.subflows)
            wait_s = wait_for_bytes(start, age_s, moved)
        if wait_s:
            self._timers.add(now + wait_s, session.token)
            return False
        session.started = True
        self._behind.note_activity(session.token)
        if start.after or start.after_bytes:
            session.history.add(moment(self._clock), HistoryEvent.START_REACHED)
        return True
