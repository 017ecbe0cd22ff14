# SPDX-License-Identifier: Apache-2.0
"""Makes a session have the subflows its policy wants: plans it, and performs the plan.

``event_handler`` and ``sweeper`` say when. What can wait (retries, thresholds) waits in the timers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pm.clock import Clock, moment
from pm.errors import KernelRefused
from pm.kernel_protocols import Diagnosis
from pm.log_budget import get_limited_logger
from pm.model import Origin, Pair, token_text
from pm.policies.model import Policy
from pm.policies.rates import Rate
from pm.sessions.actions import Action, Announce, Close, Open, Plan, SetBackup, Withdraw
from pm.sessions.admission import wait_for_age, wait_for_bytes
from pm.sessions.backoff import ASK_AGAIN_S
from pm.sessions.behind_programs import BehindPrograms, NoPrograms
from pm.sessions.endpoint_book import EndpointBook
from pm.sessions.executor import Executor
from pm.sessions.failures import forget_failures, forget_halves, forget_what_works
from pm.sessions.history import HistoryEvent
from pm.sessions.local_addresses import AddressBook
from pm.sessions.open_limits import OpenLimits
from pm.sessions.plan import Chooser, plan
from pm.sessions.session import Session, SessionState
from pm.sessions.session_table import SessionTable
from pm.sessions.timers import TimerQueue
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
        behind: BehindPrograms | NoPrograms,
        open_limits: OpenLimits,
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
        self._behind = behind
        self._open_limits = open_limits
        self._timers = timers
        self._watch = watch
        self._addresses = addresses
        self._endpoints = endpoints
        self._path_managers = path_managers
        self._counters = counters
        self._clock = clock

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
            if not session.managed:
                break  # the first one was refused: the kernel's own path manager has the session
            if isinstance(action, Open) and (session.half_closed or action.pair in failed):
                continue  # those of one pair fail together, and all of a session that one end has closed
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
        self._behind.note_activity(session.token, now)
        if start.waits:
            session.history.add(moment(self._clock), HistoryEvent.START_REACHED)
        return True
