# SPDX-License-Identifier: Apache-2.0
"""Turns kernel events into changes of the session table, and has the reconciler act on them.

From an event to its commands there is no queue and no task switch, and the first subflows are armed
before ESTABLISHED comes (``preopened``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from pm.clock import Clock, Moment, moment
from pm.errors import KernelRefused
from pm.kernel import EventType, MptcpEvent, RawEvent
from pm.kernel_protocols import Diagnosis
from pm.log_budget import get_limited_logger
from pm.model import Origin, RemoteAddress, Subflow, SubflowState, token_text
from pm.sessions.actions import ActionKind, Close
from pm.sessions.admission import refusal
from pm.sessions.backoff import PROVEN_S
from pm.sessions.behind_programs import BehindPrograms, NoPrograms
from pm.sessions.endings import Endings
from pm.sessions.endpoint_book import EndpointBook
from pm.sessions.executor import Executor, Publish
from pm.sessions.open_limits import OpenLimits
from pm.sessions.policy_assignment import Classified, PolicyAssignment
from pm.sessions.preopened import FirstSubflows, PendingSession
from pm.sessions.reconciler import Reconciler
from pm.sessions.resync import Resync
from pm.sessions.session import FailureKind, Session, SessionState, join_counter
from pm.sessions.session_table import SessionTable
from pm.sessions.timers import TimerQueue
from pm.sessions.watch import Watch

log = get_limited_logger()


class EventHandler:
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
        endpoints: EndpointBook,
        endings: Endings,
        reconciler: Reconciler,
        on_denied: Callable[[Session], None],
        publish: Publish,
        counters: Counter[str],
        observe_join: Callable[[float], None],
        clock: Clock,
    ) -> None:
        """``observe_join`` gets the seconds from each ESTABLISHED to the kernel having its commands."""
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
        self._endpoints = endpoints
        self._endings = endings
        self._reconciler = reconciler
        self._on_denied = on_denied
        self._publish = publish
        self._counters = counters
        self._observe_join = observe_join
        self._clock = clock

    def apply(self, message: RawEvent) -> None:
        """One event of the kernel, and the commands that follow from it."""
        try:
            self._apply(message)
        except KernelRefused as e:  # a question, not a command: out of memory, say
            self._counters["questions_refused"] += 1
            log.warning(
                "question_refused", error=str(e), remedy="none needed: the sessions are compared soon"
            )
            self._resync.request()

    def _apply(self, message: RawEvent) -> None:
        now, kind = moment(self._clock), message.type
        self._counters["events"] += 1
        if kind == EventType.ESTABLISHED:
            self._established(message, now)
        elif kind == EventType.CREATED:
            self._first_subflows.expect(message.decode(), now)
        else:
            event = message.decode()
            self._first_subflows.admit(event.token)
            if kind == EventType.CLOSED:
                self._first_subflows.forget(event.token)
                self._resync.end_session(event.token)
            elif session := self._table.get(event.token):
                self._behind.note_activity(event.token)
                if self._changed(session, event, now):
                    self._reconciler.reconcile_for_event(session, now.monotonic)

    def admit(self, pending: PendingSession) -> None:
        """Take a session whose CREATED was received into the table."""
        session = self._table.create(pending.event, pending.since)
        self._on_denied(session)
        self._assign(session, pending.classified, pending.since)
        self._publish(pending.since.time, "session", "created", session, {})

    def _established(self, message: RawEvent, now: Moment) -> None:
        """ESTABLISHED: the kernel takes commands on this session from now on, and had those armed."""
        event, first_subflows = message.decode(), self._first_subflows
        first_subflows.admit(event.token)
        session = self._table.establish(event, now)
        self._behind.note_activity(event.token)
        armed = first_subflows.take_armed(event.token)
        if armed and message.outcomes is not None:
            self._executor.record(session, armed, message.outcomes)
            if session.policy:
                self._open_limits.opened(session, session.policy, len(armed), now.monotonic)
            self._observe_join(message.took_s)
        if session.policy is None:
            self._assign(session, first_subflows.classify(event), now)
        if session.policy is None and self._endpoints.in_use:
            with suppress(KernelRefused):  # asked again below
                self._assignment.find_cgroup(session)
        opened = self._counters[ActionKind.OPEN]
        self._reconciler.reconcile(session)
        if not armed and self._counters[ActionKind.OPEN] > opened:
            self._observe_join(self._clock.monotonic() - now.monotonic)
            policy = session.policy
            # What the endpoints want depends on a table that changes; and some of it is bound to interfaces.
            fixed = session.started and not session.remotes and not session.retries
            if policy and fixed and policy is self._endpoints.in_force(session):
                first_subflows.remember(event, session, policy)
        if self._endings.on_ended:  # a record names it, and the session may be a short one
            with suppress(KernelRefused):
                self._assignment.find_cgroup(session)
        elif not session.cgroup_id:
            self._assignment.find_cgroup_later(session.token)
        self._publish(now.time, "session", "established", session, {})

    def _assign(self, session: Session, found: Classified | None, now: Moment) -> None:
        if found and session.device is None and found.device is not None:
            self._table.socket_known(session, found.device, found.mark)
        self._assignment.assign(session, found.policy if found else None, now)

    def _changed(self, session: Session, event: MptcpEvent, now: Moment) -> bool:
        """Note what an event says of a session; whether its plan may be another now."""
        match event.type:
            case EventType.SUB_ESTABLISHED:
                return self._subflow_established(session, event, now)
            case EventType.SUB_CLOSED:
                return self._subflow_closed(session, event, now)
            case EventType.ANNOUNCED:
                remote = RemoteAddress(event.remote, event.remote_port, event.remote_id)
                changed = self._table.remote_announced(session, remote, now)
                if remote in session.refused_remotes:
                    self._counters["remote_addresses_refused"] += 1
                elif changed:
                    self._publish(now.time, "session", "remote_address_announced", session, remote._asdict())
                return changed
            case EventType.REMOVED:
                if not self._table.remote_removed(session, event.remote_id, now):
                    return False
                if any(s.state is SubflowState.OPENING for s in session.subflows):
                    self._resync.request()  # the kernel drops those in SYN_SENT without an event
                detail = {"address_id": event.remote_id}
                self._publish(now.time, "session", "remote_address_removed", session, detail)
            case EventType.SUB_PRIORITY:
                self._table.priority_changed(session, event, now)
                return False
        return True

    def _subflow_established(self, session: Session, event: MptcpEvent, now: Moment) -> bool:
        table, was = self._table, session.state
        subflow = table.subflow_established(session, event, now)
        if subflow.origin is Origin.PEER:
            (found,) = self._diagnosis.find_subflows((subflow,))
            table.identify(session, subflow, found, now)
        elif session.retries and subflow.pair in session.retries:
            self._timers.add(now.monotonic + PROVEN_S, session.token)
        if subflow.origin is not Origin.INITIAL:
            self._counters[join_counter("accepted" if subflow.origin is Origin.PEER else "established")] += 1
        detail = {"subflow": subflow.id, "origin": subflow.origin.name.lower()}
        self._publish(now.time, "subflow", "established", session, detail)
        if subflow.origin is Origin.PEER:
            self.joined(session, (subflow,))
            return was is SessionState.CREATED
        return True

    def _subflow_closed(self, session: Session, event: MptcpEvent, now: Moment) -> bool:
        ending = self._table.subflow_closed(session, event, now)
        if ending is None:
            return False
        self._counters["subflows_lost"] += 1
        self._watch.after_loss(session.token)
        subflow = ending.subflow.id
        if ending.is_failure:
            if ending.kind is not FailureKind.ENDED:
                self._counters[join_counter(ending.kind)] += 1
            word = "subflow_lost" if ending.kind is FailureKind.ENDED else "subflow_failed"
            token = token_text(session.token)
            log.info(word, about=session.token, token=token, subflow=subflow, reason=ending.reason)
        detail = {"subflow": subflow, "reason": str(session.history[-1].detail)}
        self._publish(now.time, "subflow", "closed", session, detail)
        return True

    def joined(self, session: Session, joins: Sequence[Subflow]) -> None:
        """Close joins of the peer that the policy does not accept."""
        if session.policy is None and not session.unowned and self._endpoints.serving:
            with suppress(KernelRefused):
                self._assignment.find_cgroup(session)
        policy = self._endpoints.in_force(session)
        if policy is None or not session.managed:
            return
        for join in reversed(joins):
            if reason := refusal(policy, join, session.subflows):
                self._counters["joins_refused"] += 1
                self._executor.perform(session, Close(join, reason))
