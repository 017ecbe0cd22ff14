# SPDX-License-Identifier: Apache-2.0
"""What the API needs of the service: a Protocol, and the data that cross it.

The API programs against ``ControlPlane``; ``pm.api.control_plane`` implements it. ``SubflowFigures``
names what the views read of the kernel's figures of a subflow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from pm.api.events import EventReader
from pm.clock import Moment
from pm.config.load import Loaded
from pm.config.model import SelectionMode
from pm.errors import Problem
from pm.findings import Finding
from pm.kernel import SocketRecord
from pm.linux.host.system_check import SystemCheck
from pm.model import LinkState, LocalAddress, Subflow
from pm.policies.model import Policy
from pm.programs.tcp_option_programs import PluginReport
from pm.sampling.sampler import Sampler
from pm.sessions.ledger import Ledger
from pm.sessions.missing import MissingPair
from pm.sessions.preview import Explanation, Prospect
from pm.sessions.session import Session
from pm.sessions.why import Why


class SubflowFigures(Protocol):
    """The kernel's figures of one subflow, from sock_diag (INET_DIAG_INFO: struct tcp_info)."""

    @property
    def rtt_us(self) -> int: ...
    @property
    def cwnd(self) -> int: ...
    @property
    def congestion_control(self) -> str: ...
    @property
    def bytes_acked(self) -> int: ...
    @property
    def bytes_sent(self) -> int: ...
    @property
    def bytes_received(self) -> int: ...
    @property
    def retransmits(self) -> int: ...
    @property
    def delivery_rate(self) -> int: ...
    @property
    def cookie(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LastReload:
    """How the last attempt to load the configuration ended; ``time`` is seconds since the epoch."""

    time: float
    ok: bool
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """State of the service as a whole. ``ready``: attached to its cgroups and the sessions dumped.

    ``reasons`` say why it is not ready any more: what others changed, and is left so (``pm.upkeep``).

    ``config_digest`` names the configuration in force, also while the file holds a newer, bad one;
    ``sources`` are the third parties' C files in force (path -> digest).
    """

    version: str
    pid: int
    started_at: Moment
    ready: bool
    reasons: tuple[str, ...]
    datapath: str
    selection: str
    kernel_release: str
    checks: Sequence[SystemCheck]
    config_path: str
    config_digest: str
    config_warnings: Sequence[Problem]
    sources: Mapping[str, str]
    last_reload: LastReload
    counters: Mapping[str, int]
    sessions: int


@dataclass(slots=True, kw_only=True)
class ServiceState:
    """What the service knows of itself. ``loaded`` is the configuration in force.

    ``checks`` are kept up to date in place.
    """

    config_path: Path
    datapath: str
    selection: SelectionMode
    initial_namespace: bool
    checks: list[SystemCheck]
    started_at: Moment
    loaded: Loaded
    last_reload: LastReload
    counters: Counter[str]
    ready: bool = False


class DryRun(NamedTuple):
    """A configuration that is not in force, and what it would do."""

    loaded: Loaded
    prospect: Prospect


class Connection(NamedTuple):
    """A TCP connection, or a listener (``socket`` tells), and why MPTCP is not used.

    ``why`` is there where MPTCP is used and the service knows the session.
    """

    socket: SocketRecord
    cgroup: str | None
    findings: Sequence[Finding]
    why: Why | None


class SocketReport(NamedTuple):
    """``namespace`` is the inode of the network namespace; ``left_out`` counts sockets beyond the limit."""

    namespace: int
    looked_at: int
    left_out: int
    connections: Sequence[Connection]


class ControlPlane(Protocol):
    async def catch_up(self) -> None:
        """Until what the kernel has told by now is known here: the service may read it late."""

    def status(self) -> Status: ...
    def configuration(self) -> Loaded:
        """What is in force."""

    def policies(self) -> Sequence[Policy]: ...

    def attached(self) -> Mapping[str, str]:
        """Cgroup path below the cgroup2 root -> name of the policy whose classifier is attached there."""

    def sessions(self) -> Mapping[int, Session]:
        """The live table by token, in ascending order of ``Session.number``."""

    def cgroup_path(self, session: Session) -> str | None:
        """Path below the cgroup2 root; None where it is unknown or the cgroup is gone. No I/O."""

    def program_of(self, session: Session) -> str | None:
        """Path manager program that opens the session's subflows; None where the service does. No I/O."""

    def addresses(self) -> Sequence[LocalAddress]: ...

    def link_state(self, interface: str) -> LinkState: ...

    @property
    def ledger(self) -> Ledger:
        """What everything has carried."""

    @property
    def sampler(self) -> Sampler:
        """Figures of the last minutes."""

    def stats(self, sessions: Sequence[Session]) -> Sequence[Sequence[SubflowFigures | None]]:
        """Per session, per subflow in the order of ``Session.subflows``; None where the socket is gone."""

    def option_counters(self) -> Mapping[str, Mapping[str, int]]:
        """TCP-option plugin -> event -> how often; empty where no policy has options."""

    async def option_reports(self, session: Session) -> Mapping[int, Sequence[PluginReport]]:
        """TCP options with something to tell, by the cookie of the subflow's socket."""

    def open_subflow(
        self, token: int, local: str, remote: str, remote_port: int, backup: bool | None
    ) -> Subflow:
        """``backup`` None: as configured for the local address. Raises NotFound, KernelRefused.

        ``local_port`` is 0 where the kernel has not told it yet.
        """

    def close_subflow(self, token: int, subflow_id: str) -> None:
        """Raises NotFound, KernelRefused."""

    def set_backup(self, token: int, subflow_id: str, backup: bool) -> None:
        """Raises NotFound, KernelRefused."""

    def explain(self, cgroup: str, remote: str, remote_port: int) -> Explanation:
        """What a connection of a cgroup to there would get. Raises KernelRefused where there is no route."""

    async def missing(self, session: Session) -> Sequence[MissingPair]:
        """The pairs with fewer working subflows than wanted, as of now. Raises KernelRefused."""

    async def why(self, token: int) -> Why:
        """Which subflows a session has not, and why. Raises NotFound, KernelRefused."""

    async def look_at_sockets(self, wanted: Callable[[SocketRecord], bool]) -> SocketReport:
        """What the kernel tells of these TCP sockets, and why they have no MPTCP. Raises KernelRefused."""

    def cgroup_of_socket(self, socket: SocketRecord) -> str | None:
        """Path below the cgroup2 root; None where it is unknown. No I/O but the first time."""

    async def dry_run(self, content: str | None) -> DryRun:
        """What a reload would do, if the file had this content. Raises ConfigError as ``reload`` does."""

    async def reload(self) -> None:
        """Raises ConfigError with all problems; the last good configuration stays in force."""

    def subscribe(self, after: str = "") -> AbstractAsyncContextManager[EventReader]:
        """Follow what happens; ``after`` is the id of the last event a reader has seen."""
