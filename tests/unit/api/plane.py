# SPDX-License-Identifier: Apache-2.0
"""A control plane in memory, of real model objects: what the tests of REST and the CLI talk to."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_network
from typing import NamedTuple

from pm.api.control import Connection, DryRun, LastReload, SocketReport, Status
from pm.api.events import Broadcast, EventReader
from pm.config.load import Loaded
from pm.config.model import Config
from pm.errors import ConfigError, KernelRefused, NotFound, Problem
from pm.findings import Finding
from pm.kernel import SocketRecord
from pm.linux.host.system_check import SystemCheck
from pm.model import LinkState, LocalAddress, Origin, Pair, RemoteAddress, Role, Subflow, SubflowState
from pm.no_session import Chosen, MptcpState, explain
from pm.path_managers.choice import PathManagerChoice
from pm.path_managers.fullmesh import FullMesh
from pm.policies.model import Accept, Policy, Start
from pm.programs.tcp_option_programs import PluginReport
from pm.sampling.sampler import Sampler
from pm.sessions.actions import Close, Open, SetBackup
from pm.sessions.history import History, HistoryEvent
from pm.sessions.ledger import Ledger
from pm.sessions.missing import MissingPair, PairState
from pm.sessions.preview import Changed, Decision, Explanation, Prospect
from pm.sessions.session import Retry, Session, SessionState
from pm.sessions.why import Why
from tests.unit.builders import at

SYNC = Policy(
    name="sync",
    cgroup="/system.slice/rsync*.service",
    path_manager=PathManagerChoice("fullmesh", FullMesh.Parameters()),
    start=Start(after=0.5, after_bytes=65536),
    announce=True,
    accept=Accept(max_subflows=8, from_=(ip_network("10.0.0.0/8"),)),
)
REST = Policy(name="rest", cgroup="/", path_manager=PathManagerChoice("none", None))
CGROUP = "/system.slice/rsync1.service"


class Figures(NamedTuple):
    rtt_us: int = 1500
    cwnd: int = 10
    congestion_control: str = "cubic"
    bytes_acked: int = 900
    bytes_sent: int = 1000
    bytes_received: int = 2000
    retransmits: int = 3
    delivery_rate: int = 125000
    cookie: int = 4711


def make_session(number: int, policy: Policy | None = SYNC) -> Session:
    """A session with an initial subflow and one of its path manager."""
    session = Session(
        token=0xA0000000 + number,
        number=number,
        role=Role.CLIENT,
        socket_family=4,
        local="10.0.1.1",
        local_port=40000 + number % 20000,
        remote="10.0.1.2",
        remote_port=443,
        created=at(1.7e9 + number),
        established=at(1.7e9 + number + 0.25),
        state=SessionState.ESTABLISHED,
        history=History(),
        policy=policy,
        remotes=(RemoteAddress("10.0.2.2", 0, 2),),
        retries={
            Pair("10.0.3.1", "10.0.1.2", 443): Retry(2, 0.0, 0.0, "ENETUNREACH: Network is unreachable")
        },
    )
    session.subflows += [
        Subflow("10.0.1.1", session.local_port, "10.0.1.2", 443, Origin.INITIAL, SubflowState.ESTABLISHED),
        Subflow("10.0.2.1", 50000, "10.0.2.2", 443, Origin.POLICY, SubflowState.ESTABLISHED, 1, 2),
    ]
    session.history.add(session.created, HistoryEvent.CREATED)
    session.history.add(at(1.7e9 + number + 0.25), HistoryEvent.ESTABLISHED)
    return session


@dataclass
class Plane:
    """Implements ``pm.api.control.ControlPlane``; tests change its attributes as they need."""

    table: dict[int, Session] = field(default_factory=dict)
    paths: dict[int, str] = field(default_factory=dict)
    sockets: list[SocketRecord] = field(default_factory=list)
    checks: list[SystemCheck] = field(
        default_factory=lambda: [SystemCheck("mptcp", True, True, "enabled", "")]
    )
    bad_config: tuple[Problem, ...] = ()
    refusal: KernelRefused | None = None
    ready: bool = True
    reasons: tuple[str, ...] = ()
    gone: bool = False
    stats_calls: int = 0
    caught_up: int = 0
    events: Broadcast = field(default_factory=Broadcast)

    def add(self, number: int, policy: Policy | None = SYNC) -> Session:
        session = make_session(number, policy)
        self.table[session.token] = session
        return session

    async def catch_up(self) -> None:
        self.caught_up += 1

    def status(self) -> Status:
        return Status(
            version="0.1.0",
            pid=4711,
            started_at=at(1.7e9),
            ready=self.ready,
            reasons=self.reasons,
            datapath="netlink",
            selection="cgroup",
            kernel_release="6.18.0",
            checks=self.checks,
            config_path="/etc/mptcp-pm.yaml",
            config_digest="ab" * 32,
            config_warnings=(Problem("/etc/mptcp-pm.yaml", 4, "policies[0].cgroup", "looks wrong"),),
            sources={"/x.c": "cd" * 32},
            last_reload=LastReload(time=1.7e9, ok=not self.bad_config, problems=self.bad_config),
            counters={"events": 12, "open": 3, "open_refused": 1, "reloads": 2},
            sessions=len(self.table),
        )

    def configuration(self) -> Loaded:
        return Loaded(Config(policies=(SYNC, REST)), "ab" * 32, ())

    def policies(self) -> Sequence[Policy]:
        return (SYNC, REST)

    def attached(self) -> Mapping[str, str]:
        return {CGROUP: "sync", "/": "rest"}

    def sessions(self) -> Mapping[int, Session]:
        return self.table

    def cgroup_path(self, session: Session) -> str | None:
        return self.paths.get(session.token, CGROUP if session.policy is SYNC else None)

    def program_of(self, session: Session) -> str | None:
        return None

    def link_state(self, interface: str) -> LinkState:
        return LinkState.UP if interface in ("eth0", "eth1") else LinkState.GONE

    @cached_property
    def ledger(self) -> Ledger:
        ledger = Ledger()
        ledger.set_addresses(self.addresses())
        return ledger

    @cached_property
    def sampler(self) -> Sampler:
        return Sampler(
            sessions=self.sessions,
            stats=self.stats,
            ledger=self.ledger,
            clock=time,
            chance=random.Random(1),
        )

    def addresses(self) -> Sequence[LocalAddress]:
        return (
            LocalAddress("10.0.1.1", 24, 2, "eth0", True, False, "usable"),
            LocalAddress("fe80::1", 64, 2, "eth0", False, False, "link-local"),
        )

    def stats(self, sessions: Sequence[Session]) -> Sequence[Sequence[Figures | None]]:
        self.stats_calls += 1
        return [[None if self.gone else Figures() for _ in session.subflows] for session in sessions]

    def option_counters(self) -> Mapping[str, Mapping[str, int]]:
        return {"user_timeout": {"sent": 4, "malformed": 1}}

    async def option_reports(self, session: Session) -> Mapping[int, Sequence[PluginReport]]:
        return {4711: (PluginReport("user_timeout", True, False, 30000, None),)}

    def open_subflow(
        self, token: int, local: str, remote: str, remote_port: int, backup: bool | None
    ) -> Subflow:
        self._may_refuse()
        port = 0 if remote == "10.0.9.9" else 50001
        subflow = Subflow(
            local, port, remote, remote_port, Origin.OPERATOR, SubflowState.OPENING, 1, 0, bool(backup)
        )
        self.table[token].subflows.append(subflow)
        return subflow

    def close_subflow(self, token: int, subflow_id: str) -> None:
        self._may_refuse()
        self.table[token].subflows.remove(self._find(token, subflow_id))

    def set_backup(self, token: int, subflow_id: str, backup: bool) -> None:
        self._may_refuse()
        self._find(token, subflow_id).backup = backup

    def explain(self, cgroup: str, remote: str, remote_port: int) -> Explanation:
        session = make_session(9)
        session.unroutable = {Pair("10.0.3.1", remote, remote_port): "no route (ENETUNREACH)"}
        session.complaint = "raised RuntimeError: bug"
        return Explanation(session, [Open(Pair("10.0.2.1", remote, remote_port), 1, True, "fullmesh", 3)])

    async def missing(self, session: Session) -> Sequence[MissingPair]:
        pair = Pair("10.0.3.1", "10.0.1.2", 443)
        reason = "ENETUNREACH: Network is unreachable"
        state = PairState.OPENING
        return (MissingPair(pair=pair, state=state, age_s=3.25, retransmits=2, reason=reason),)

    async def why(self, token: int) -> Why:
        session = self.table.get(token)
        if session is None:
            raise NotFound(f"no session {token:#010x}")
        (missing,) = await self.missing(session)
        finding = Finding(
            "syn_unanswered", "No answer came.", ("2 retransmits",), ("ping 10.0.1.2",), likely=True
        )
        return Why(token, session, (Finding("half_closed", "One end has closed."),), ((missing, (finding,)),))

    async def look_at_sockets(self, wanted: Callable[[SocketRecord], bool]) -> SocketReport:
        chosen = Chosen(wanted)
        chosen.add(self.sockets)
        state = MptcpState(True, 3600, (32768, 60999), {})
        connections = [
            Connection(
                socket,
                self.cgroup_of_socket(socket),
                explain(socket, None, self.sockets, state) if socket.token not in self.table else [],
                await self.why(socket.token) if socket.token in self.table else None,
            )
            for socket in chosen.sockets
        ]
        return SocketReport(4026531840, chosen.looked_at, chosen.left_out, connections)

    def cgroup_of_socket(self, socket: SocketRecord) -> str | None:
        return self.paths.get(socket.cgroup_id)

    async def dry_run(self, content: str | None) -> DryRun:
        await self.reload()
        warning = Problem("/etc/mptcp-pm.yaml", 4, "policies[0].cgroup", "looks wrong")
        decisions: list[Decision] = [
            Open(Pair("10.0.2.1", "10.0.9.1", 5201), 1, False, "fullmesh"),
            *(Close(s, "not wanted by the policy") for s in make_session(1).subflows[1:]),
            SetBackup(make_session(1).subflows[0], True, "backup"),
        ]
        changed = Changed(make_session(1), REST, decisions)
        return DryRun(Loaded(Config(), "cd" * 32, (warning,)), Prospect(2, 1, 1, [changed]))

    async def reload(self) -> None:
        if self.bad_config:
            raise ConfigError(self.bad_config)

    def subscribe(self, after: str = "") -> AbstractAsyncContextManager[EventReader]:
        return self.events.subscribe(after)

    def publish(self, type: str = "session", action: str = "created", token: int | None = 0xA0000001) -> None:
        self.events.publish(time.time(), type, action, token, {"note": "x"})

    def _find(self, token: int, subflow_id: str) -> Subflow:
        for subflow in self.table[token].subflows:
            if subflow.id == subflow_id:
                return subflow
        raise NotFound(f"no subflow {subflow_id}")

    def _may_refuse(self) -> None:
        if self.refusal:
            raise self.refusal


def not_connected() -> KernelRefused:
    return KernelRefused("open subflow 10.0.1.1 × 10.0.2.2", errno.ENOTCONN, "session not established")
