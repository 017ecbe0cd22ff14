# SPDX-License-Identifier: Apache-2.0
"""What the API asks, answered by the parts of the running service."""

from __future__ import annotations

import asyncio
import os
import platform
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from pm import __version__
from pm.api.control import DryRun, ServiceState, SocketReport, Status
from pm.api.events import Broadcast, EventReader
from pm.api.investigator import Investigator
from pm.api.socket_report import look_at_sockets
from pm.config.load import Loaded
from pm.kernel import SocketRecord
from pm.linux.host.counters import CounterHistory
from pm.linux.netlink.addresses import AddressMonitor
from pm.linux.netlink.inet_diag_answers import SubflowStats
from pm.linux.netlink.route_lookup import source_for
from pm.linux.netlink.sock_diag import SockDiag
from pm.log import lost_lines
from pm.model import LinkState, LocalAddress, Pair, Subflow, SubflowState
from pm.policies.model import Addresses, Policy
from pm.policies.policy_table import compile_policies
from pm.programs.path_manager_programs import PathManagerPrograms
from pm.programs.tcp_option_programs import PluginReport, TcpOptionPrograms
from pm.programs.whole_namespace import AnySelection
from pm.sampling.sampler import Sampler
from pm.sessions.assembly import Sessions
from pm.sessions.known_ways import Judge
from pm.sessions.ledger import Ledger
from pm.sessions.missing import MissingPair
from pm.sessions.preview import Explanation
from pm.sessions.session import Session
from pm.sessions.why import Why
from pm.upkeep import Upkeep

CHANGED_MAX = 1000  # sessions that a dry run lists


class ServiceControlPlane:
    """Implements ``pm.api.control.ControlPlane``."""

    def __init__(
        self,
        *,
        state: ServiceState,
        upkeep: Upkeep,
        sessions: Sessions,
        addresses: AddressMonitor,
        diagnosis: SockDiag,
        selection: AnySelection,
        options: TcpOptionPrograms,
        programs: PathManagerPrograms | None,
        broadcast: Broadcast,
        reload: Callable[[], Awaitable[None]],
        try_out: Callable[[str | None], Awaitable[Loaded]],
        judge_under: Callable[[Addresses], Judge],
        counters: CounterHistory,
        record_counts: Callable[[], Mapping[str, int]],
    ) -> None:
        """``try_out`` loads the file and changes nothing; ``judge_under`` asks for ways under other rules."""
        self._state = state
        self._upkeep = upkeep
        self._sessions = sessions
        self._addresses = addresses
        self._diagnosis = diagnosis
        self._selection = selection
        self._options = options
        self._programs = programs
        self._broadcast = broadcast
        self._reload = reload
        self._try_out = try_out
        self._judge_under = judge_under
        self._record_counts = record_counts
        self._investigator = Investigator(
            sessions=sessions,
            addresses=addresses,
            diagnosis=diagnosis,
            counters=counters,
            cgroup_of=self.cgroup_path,
            program_of=self.program_of,
        )
        self.sampler = Sampler(
            sessions=self.sessions,
            stats=self.stats,
            ledger=sessions.ledger,
            clock=time,
            chance=random.SystemRandom(),
        )
        self._one_look = asyncio.Lock()  # a look walks over all sockets: one at a time

    async def catch_up(self) -> None:
        await self._sessions.events.catch_up()

    def status(self) -> Status:
        state = self._state
        return Status(
            version=__version__,
            pid=os.getpid(),
            started_at=state.started_at,
            ready=state.ready and not self._upkeep.reasons,
            reasons=tuple(self._upkeep.reasons.values()),
            datapath=state.datapath,
            selection=state.selection,
            kernel_release=platform.release(),
            checks=state.checks,
            config_path=str(state.config_path),
            config_digest=state.loaded.digest,
            config_warnings=state.loaded.warnings,
            sources={**self._options.files, **(self._programs.files if self._programs else {})},
            last_reload=state.last_reload,
            counters=self._counters(),
            sessions=len(self._sessions.table),
        )

    def configuration(self) -> Loaded:
        return self._state.loaded

    def _counters(self) -> Counter[str]:
        counters = self._state.counters | Counter(self._selection.counters())
        counters["log_lines_lost"] = lost_lines()
        counters.update(self._record_counts())
        if self._programs:
            counters.update(self._programs.counters())
        return counters

    def policies(self) -> Sequence[Policy]:
        return self._state.loaded.config.policies

    def attached(self) -> Mapping[str, str]:
        return self._selection.attached()

    def sessions(self) -> Mapping[int, Session]:
        self._sessions.first_subflows.admit_all()
        return self._sessions.table.by_token

    def cgroup_path(self, session: Session) -> str | None:
        return self._selection.cgroup_path(session.cgroup_id)

    def program_of(self, session: Session) -> str | None:
        if self._programs is None or session.policy is None:
            return None
        return self._programs.program_of(session.token, session.policy)

    def addresses(self) -> Sequence[LocalAddress]:
        return self._addresses.addresses

    def link_state(self, interface: str) -> LinkState:
        return self._addresses.state_of(interface)

    @property
    def ledger(self) -> Ledger:
        return self._sessions.ledger

    def stats(self, sessions: Sequence[Session]) -> Sequence[Sequence[SubflowStats | None]]:
        subflows = [subflow for session in sessions for subflow in session.subflows]
        answers = iter(self._diagnosis.subflow_stats(subflows))
        found = [[next(answers) for _ in session.subflows] for session in sessions]
        for session, of_session in zip(sessions, found, strict=True):
            for subflow, stats in zip(session.subflows, of_session, strict=True):
                if stats and subflow.state is SubflowState.ESTABLISHED:
                    self._sessions.ledger.note(session, subflow, stats.figures)
        return found

    def option_counters(self) -> Mapping[str, Mapping[str, int]]:
        return self._options.counters()

    async def option_reports(self, session: Session) -> Mapping[int, Sequence[PluginReport]]:
        return await self._options.reports([(s.local_port, s.remote_port) for s in session.subflows])

    def open_subflow(
        self, token: int, local: str, remote: str, remote_port: int, backup: bool | None
    ) -> Subflow:
        self._sessions.events.be_prompt()
        pair = Pair(local, remote, remote_port)
        return self._sessions.operator_commands.open_subflow(token, pair, backup=backup)

    def close_subflow(self, token: int, subflow_id: str) -> None:
        self._sessions.events.be_prompt()
        self._sessions.operator_commands.close_subflow(token, subflow_id)

    def set_backup(self, token: int, subflow_id: str, backup: bool) -> None:
        self._sessions.events.be_prompt()
        self._sessions.operator_commands.set_backup(token, subflow_id, backup=backup)

    def explain(self, cgroup: str, remote: str, remote_port: int) -> Explanation:
        local = source_for(remote, remote_port)
        policy = self._selection.policy_at(cgroup)
        return self._sessions.preview.explain(policy, local, remote, remote_port)

    async def why(self, token: int) -> Why:
        self._sessions.first_subflows.admit_all()
        return await self._investigator.why(token)

    async def missing(self, session: Session) -> Sequence[MissingPair]:
        return await self._investigator.missing(session)

    async def look_at_sockets(self, wanted: Callable[[SocketRecord], bool]) -> SocketReport:
        async with self._one_look:
            return await look_at_sockets(wanted, self._diagnosis, self.cgroup_of_socket, self.why)

    def cgroup_of_socket(self, socket: SocketRecord) -> str | None:
        return self._selection.cgroup_path(socket.cgroup_id) if socket.cgroup_id else None

    async def dry_run(self, content: str | None) -> DryRun:
        loaded = await self._try_out(content)
        table, rules = compile_policies(loaded.config.policies), loaded.config.addresses

        def policy_of(session: Session) -> Policy | None:
            path = self._selection.cgroup_path(session.cgroup_id)
            return table.match(path) if path else session.policy

        prospect = await self._sessions.preview.prospect(
            policy_of, self._addresses.under(rules), self._judge_under(rules), CHANGED_MAX
        )
        return DryRun(loaded, prospect)

    async def reload(self) -> None:
        await self._reload()

    def subscribe(self, after: str = "") -> AbstractAsyncContextManager[EventReader]:
        return self._broadcast.subscribe(after)
