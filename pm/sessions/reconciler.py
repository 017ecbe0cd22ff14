# SPDX-License-Identifier: GPL-2.0-only
"""Makes every session have the subflows its policy wants: kernel events in, kernel commands out.

From an event to its commands there is no queue and no task switch, and the first subflows are armed
before ESTABLISHED comes (``arrivals``). What can wait (retries, thresholds, naming the cgroup) waits
in the agenda.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Protocol

import structlog

from pm.kernel import Commands, Diagnosis, Event, EventsLost, EventType, Message
from pm.model import LocalAddress, Origin, RemoteAddress, Subflow, SubflowState
from pm.path_managers.base import PathManager
from pm.policies.model import Policy
from pm.sessions.actions import Action, Close, Open
from pm.sessions.address_ids import AddressIds
from pm.sessions.behind_programs import Programs, Repair
from pm.sessions.executor import Executor, Publish
from pm.sessions.operator_commands import ByHand
from pm.sessions.plan import Locals, plan
from pm.sessions.preopened import Arrivals, Expected
from pm.sessions.session import Session, SessionState
from pm.sessions.session_table import SessionTable
from pm.sessions.timers import BATCH, Agenda

log = structlog.get_logger(__name__)

AUDIT_INTERVAL_S = 5.0  # a look at 10,000 sessions costs about 40 ms, in slices
NAMING_DELAY_S = 0.05  # lets the hot path of a burst go first
THRESHOLD_POLL_S = 0.1  # how often after_bytes is looked at first; less often as a session ages
THRESHOLD_POLL_CAP_S = 5.0


class Selector(Protocol):
    """Which policy owns a connection or a cgroup."""

    def classify(self, local: str, local_port: int, remote: str, remote_port: int) -> Policy | None:
        """What the classifier in the socket's cgroup recorded; None where it recorded nothing."""

    def policy_of_cgroup(self, cgroup_id: int) -> Policy | None: ...


class Reconciler:
    """Owns the session table. Not thread-safe: everything runs in the event loop's thread."""

    def __init__(
        self,
        *,
        table: SessionTable,
        commands: Commands,
        diagnosis: Diagnosis,
        selector: Selector,
        path_managers: Mapping[str, type[PathManager]],
        publish: Publish,
        counters: Counter[str],
        observe_join: Callable[[float], None],
        programs: Programs | None = None,
        address_ids: Mapping[str, int] | None = None,
    ) -> None:
        """``observe_join`` gets the seconds from each ESTABLISHED to the kernel having its commands.

        ``programs`` are those of the bpf datapath, ``address_ids`` those given before, by address.
        """
        self.table = table
        self._observe_join = observe_join
        self._counters = counters
        self._commands = commands
        self._diagnosis = diagnosis
        self._selector = selector
        self._path_managers = path_managers
        self._publish = publish
        self._executor = Executor(table=table, commands=commands, publish=publish, counters=counters)
        self.by_hand = ByHand(table=table, executor=self._executor, local_id=self._local_id)
        self._arrivals = Arrivals(
            commands=commands, executor=self._executor, selector=selector, admit=self._admit
        )
        self._agenda = Agenda(self._due)
        self._repair = programs and Repair(
            programs=programs,
            agenda=self._agenda,
            merge_dump=self._merge_dump,
            reconcile=self._due,
            counters=counters,
        )
        self.locals = Locals((), frozenset(), {})
        self._ids = AddressIds(address_ids or {})
        self._unnamed: list[int] = []
        self._sweep = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    # Running

    async def run(self) -> None:
        """Follow the kernel until cancelled."""
        self._loop.add_reader(self._commands.fileno(), self._on_readable)
        try:
            self.resync()
            while True:
                await self._sweep.wait()
                self._sweep.clear()
                await self._reconcile_all()
        finally:
            self._loop.remove_reader(self._commands.fileno())
            self._agenda.cancel()
            self._arrivals.cancel()
            if self._repair:
                self._repair.cancel()

    def _on_readable(self) -> None:
        try:
            for message in self._commands.read_events(BATCH):
                self.apply(message)
        except EventsLost:
            self._counters["events_lost"] += 1
            log.warning("events_lost", remedy="the sessions are compared with sock_diag now")
            self.resync()

    def resync(self) -> None:
        """Compare the table with sock_diag: at start, and after the kernel dropped events."""
        self._merge_dump()
        if self._repair:
            self._close_gone(self._repair.unknown_claims(self.table.by_token), time.time())
        self._sweep.set()

    def _merge_dump(self) -> None:
        now = time.time()
        self._arrivals.admit_all()
        self._arrivals.disarm()
        merged = self.table.merge(self._diagnosis.dump_subflows(), now)
        gone = self._close_gone([s.token for s in merged.sessions_missing], now)
        for session in merged.sessions_missing:
            if session.token not in gone:  # it lives on for a while without any subflow
                merged.subflows_missing.extend((session, s) for s in session.subflows)
        for session, subflow in merged.subflows_missing:
            if not self._diagnosis.subflow_exists(subflow):
                self.table.forget(session, subflow)
                session.history.add(now, "subflow_gone", subflow.pair)
        for session in merged.changed:
            self._name(session)
        self._counters["resyncs"] += 1

    async def audit(self) -> None:
        """Close for ever what is gone without an event.

        The kernel tells nothing of sessions that were reset (MP_FASTCLOSE) or never accepted: it has
        taken their token away before it would.
        """
        while True:
            await asyncio.sleep(AUDIT_INTERVAL_S)
            tokens = list(self.table.by_token)
            for first in range(0, len(tokens), BATCH):
                self._close_gone(tokens[first : first + BATCH], time.time())
                await asyncio.sleep(0)

    def _close_gone(self, tokens: Sequence[int], now: float) -> set[int]:
        infos = self._diagnosis.session_infos(tokens)
        gone = {token for token, info in zip(tokens, infos, strict=True) if info is None}
        for token in gone:
            self._closed(token, now)
        return gone

    # Events

    def apply(self, message: Message) -> None:
        """One event of the kernel, and the commands that follow from it."""
        now, kind = time.time(), message.type
        self._counters["events"] += 1
        if kind == EventType.ESTABLISHED:
            self._establish(message, now)
        elif kind == EventType.CREATED:
            self._arrivals.expect(message.decode(), now)
        else:
            event = message.decode()
            self._arrivals.admit(event.token)
            if kind == EventType.CLOSED:
                self._arrivals.forget(event.token)
                self._closed(event.token, now)
            elif known := self.table.get(event.token):
                self._apply_to(known, event, now)

    def _admit(self, expected: Expected) -> None:
        session = self.table.create(expected.event, expected.time)
        self._set_policy(session, expected.policy)
        self._publish(expected.time, "session", "created", session, {})

    def admit_expected(self) -> None:
        """Complete the table before somebody looks at it."""
        self._arrivals.admit_all()

    def _establish(self, message: Message, now: float) -> None:
        """ESTABLISHED: the kernel takes commands on this session from now on, and had those armed."""
        event = message.decode()
        self._arrivals.admit(event.token)
        session = self.table.establish(event, now)
        if self._repair:
            self._repair.touch(event.token)
        armed = self._arrivals.take_armed(event.token)
        if armed and message.outcomes is not None:
            self._executor.record(session, armed, message.outcomes)
            self._observe_join(message.took_s)
        if session.policy is None:
            self._set_policy(session, self._arrivals.classify(event))
        opened = self._counters["open"]
        self.reconcile(session)
        if not armed and self._counters["open"] > opened:
            self._observe_join(time.time() - now)
            if session.policy and session.started and not session.remotes and not session.retries:
                self._arrivals.remember(event, session, session.policy)
        if not session.cgroup_id:
            self._name_later(session.token)
        self._publish(now, "session", "established", session, {})

    def _apply_to(self, session: Session, event: Event, now: float) -> None:
        kind, table = event.type, self.table
        if self._repair:
            self._repair.touch(event.token)
        if kind == EventType.SUB_ESTABLISHED:
            subflow = table.joined(session, event, now)
            if self._repair and subflow.origin is Origin.PEER:
                table.identify(session, subflow, self._diagnosis.find_subflow(subflow), now)
            detail = {"subflow": subflow.id, "origin": subflow.origin.name.lower()}
            self._publish(now, "subflow", "established", session, detail)
            if subflow.origin is Origin.PEER and self._refuse(session, subflow):
                return
        elif kind == EventType.SUB_CLOSED:
            parted = table.parted(session, event, now, time.monotonic())
            if parted:
                self._counters["subflows_lost"] += 1
                detail = {"subflow": parted.id, "reason": str(session.history[-1].detail)}
                self._publish(now, "subflow", "closed", session, detail)
        elif kind == EventType.ANNOUNCED:
            remote = RemoteAddress(event.remote, event.remote_port, event.remote_id)
            if not table.announced(session, remote, now):
                return
            self._publish(now, "session", "remote_address_announced", session, remote._asdict())
        elif kind == EventType.REMOVED:
            if not table.removed(session, event.remote_id, now):
                return
            self._publish(now, "session", "remote_address_removed", session, {"address_id": event.remote_id})
        elif kind == EventType.SUB_PRIORITY:
            table.priority(session, event, now)
            return
        self.reconcile(session)

    def _closed(self, token: int, now: float) -> None:
        session = self.table.close(token)
        if self._repair:
            self._repair.forget(token)
        if session:
            self._publish(now, "session", "closed", session, {"age_s": round(now - session.created, 3)})

    def _refuse(self, session: Session, subflow: Subflow) -> bool:
        """Close a join of the peer that the policy does not accept."""
        accept = session.policy.accept if session.policy else None
        if accept is None or not session.managed:
            return False
        reason = ""
        if accept.from_ is not None:
            address = ip_address(subflow.remote)
            if not any(address in prefix for prefix in accept.from_ if prefix.version == address.version):
                reason = "refused: not from an accepted prefix"
        if accept.max_subflows is not None:
            there = sum(s.state is SubflowState.ESTABLISHED for s in session.subflows)
            if there > accept.max_subflows:
                reason = f"refused: more than {accept.max_subflows} subflows"
        if reason:
            self._counters["joins_refused"] += 1
            self._executor.perform(session, Close(subflow, reason))
        return bool(reason)

    # Policies and cgroups

    def _set_policy(self, session: Session, policy: Policy | None) -> bool:
        """False where nothing changes."""
        changed = policy != session.policy
        session.policy = policy  # also where it is equal: a reload lets the old object go
        if changed:
            session.retries = session.held = None
            if policy:
                session.started = session.started or not (policy.start.after or policy.start.after_bytes)
                session.history.add(time.time(), "policy", policy.name)
        return changed

    def _name_later(self, token: int) -> None:
        if not self._unnamed:
            self._loop.call_later(NAMING_DELAY_S, self._name_batch)
        self._unnamed.append(token)

    def _name_batch(self) -> None:
        batch, self._unnamed = self._unnamed[:BATCH], self._unnamed[BATCH:]
        if self._unnamed:
            self._loop.call_soon(self._name_batch)
        for token in batch:
            if session := self.table.get(token):
                self._name(session)

    def _name(self, session: Session) -> None:
        """Ask the kernel for a session's cgroup: for display, and where no classifier ran.

        A cgroup can be filled and connect before its classifier is attached; its id tells the policy
        all the same.
        """
        if not session.cgroup_id:
            (figures,) = self._diagnosis.session_infos((session.token,))
            session.cgroup_id = figures.cgroup_id if figures else 0
        unclassified = session.policy is None and session.cgroup_id
        if unclassified and self._set_policy(session, self._selector.policy_of_cgroup(session.cgroup_id)):
            self.reconcile(session)

    def policies_changed(self) -> None:
        """After a reload: every session gets the policy that its cgroup has now."""
        self._arrivals.admit_all()
        self._arrivals.forget_kinds()
        for session in self.table:
            if not session.cgroup_id:
                self._name(session)
            self._set_policy(session, self._selector.policy_of_cgroup(session.cgroup_id))
        self._sweep.set()

    # Local addresses

    def addresses_changed(self, addresses: Sequence[LocalAddress]) -> None:
        """New truth about local addresses and links: acts on every session."""
        usable = tuple(a for a in addresses if a.usable)
        there = frozenset(a.ip for a in addresses)
        for address in usable:
            self._ids.allocate(address.ip, there)
        before = self.locals.up
        self.locals = Locals(usable, frozenset(a.ip for a in addresses if a.up), self._ids.by_ip)
        self._arrivals.forget_kinds()
        lost = before - self.locals.up
        if any(s.local in lost and not s.local_port for session in self.table for s in session.subflows):
            # A dump tells the source ports of subflows still opening: without it they could not be
            # closed, and their SYN's backoff would delay the next try by a minute.
            self.resync()
        self._sweep.set()

    async def _reconcile_all(self) -> None:
        for i, session in enumerate(list(self.table)):
            self.reconcile(session)
            if i % BATCH == BATCH - 1:
                await asyncio.sleep(0)

    # Deciding and doing

    def reconcile(self, session: Session) -> None:
        """Plan one session and perform the plan."""
        policy = session.policy
        if policy is None or session.state is not SessionState.ESTABLISHED:
            return
        monotonic = time.monotonic()
        waiting = not session.started and not self._may_start(session, policy, monotonic)
        if waiting and session.local in self.locals.up:
            return
        actions, retry_at = self._plan(session, policy)
        if self._repair:
            actions = self._repair.sift(session, policy, actions)
        for action in actions:
            if self._executor.perform(session, action) and isinstance(action, Open) and session.retries:
                retry_at = min(retry_at or float("inf"), session.retries[action.pair].not_before)
        if retry_at is not None:
            self._agenda.add(retry_at, session.token)

    def _plan(self, session: Session, policy: Policy) -> tuple[Sequence[Action], float | None]:
        path_manager = self._path_managers[policy.path_manager.name]
        try:
            return plan(session, path_manager, self.locals, time.monotonic())
        except Exception:  # a third party's: its bug must not end everybody's sessions
            self._counters["path_manager_errors"] += 1
            log.exception(
                "path_manager_failed", path_manager=path_manager.name, token=f"{session.token:#010x}"
            )
            return [], None

    def _due(self, token: int) -> None:
        if session := self.table.get(token):
            self.reconcile(session)

    def _may_start(self, session: Session, policy: Policy, monotonic: float) -> bool:
        age = time.time() - session.established
        if age < policy.start.after:
            self._agenda.add(monotonic + policy.start.after - age, session.token)
            return False
        needed = policy.start.after_bytes
        if needed and self._diagnosis.bytes_moved(session.token, session.subflows) < needed:
            interval = min(max(age / 4, THRESHOLD_POLL_S), THRESHOLD_POLL_CAP_S)
            self._agenda.add(monotonic + interval, session.token)
            return False
        session.started = True
        if self._repair:
            self._repair.touch(session.token)
        session.history.add(time.time(), "start_reached")
        return True

    def _local_id(self, session: Session, ip: str) -> int:
        local_id = self.locals.id_of(session, ip)
        if local_id is None:  # an address that the rules exclude: the kernel judges it
            local_id = self._ids.allocate(ip, frozenset(a.ip for a in self.locals.usable)) or 0
        return local_id
