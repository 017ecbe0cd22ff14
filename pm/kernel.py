# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells the service: its numbers, and records that ``pm.linux`` fills.

IP addresses are canonical text and ports are in host order. ``family`` and ``socket_family`` are 4 or 6;
they are the socket's, thus 6 also for v4-mapped addresses, whose text is IPv4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum, IntFlag
from typing import NamedTuple

from pm.errors import KernelRefused
from pm.model import Figures, Pair


class EventType(IntEnum):
    """enum mptcp_event_type (include/uapi/linux/mptcp_pm.h)."""

    CREATED = 1
    ESTABLISHED = 2
    CLOSED = 3
    ANNOUNCED = 6
    REMOVED = 7
    SUB_ESTABLISHED = 10
    SUB_CLOSED = 11
    SUB_PRIORITY = 13
    LISTENER_CREATED = 15
    LISTENER_CLOSED = 16


class TcpState(IntEnum):
    """include/net/tcp_states.h."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12


class UlpFlag(IntFlag):
    """MPTCP_SUBFLOW_FLAG_*: REM is what the peer did, LOC what this end did.

    MCAP_LOC on a subflow: this end sent the MP_CAPABLE SYN, it is the session's client. JOIN_LOC: this
    end asked for the join. Without any of the four the subflow fell back to TCP.
    """

    MCAP_REM = 1 << 0
    MCAP_LOC = 1 << 1
    JOIN_REM = 1 << 2
    JOIN_LOC = 1 << 3
    BACKUP_REM = 1 << 4
    BACKUP_LOC = 1 << 5
    FULLY_ESTABLISHED = 1 << 6
    CONNECTED = 1 << 7
    MAP_VALID = 1 << 8


# Plain integers: operations on an IntFlag take about a microsecond each, and a dump has many subflows.
_JOINED = int(UlpFlag.JOIN_LOC | UlpFlag.JOIN_REM)
_OPENED_HERE = int(UlpFlag.MCAP_LOC | UlpFlag.JOIN_LOC)
_FULLY_ESTABLISHED = int(UlpFlag.FULLY_ESTABLISHED)
_BACKUP, _PEER_BACKUP = int(UlpFlag.BACKUP_LOC), int(UlpFlag.BACKUP_REM)
_OPENING_STATES = (TcpState.SYN_SENT, TcpState.SYN_RECV)
# A subflow that this end closed on a dead path stays in FIN-WAIT-1, with its token, for two minutes.
CLOSING_STATES = (TcpState.FIN_WAIT1, TcpState.FIN_WAIT2, TcpState.LAST_ACK, TcpState.CLOSING)
LIVE_STATES = (TcpState.SYN_SENT, TcpState.SYN_RECV, TcpState.ESTABLISHED, TcpState.CLOSE_WAIT)


class EventsLost(Exception):
    """The kernel dropped events (ENOBUFS): dump and compare."""


class MptcpEvent(NamedTuple):
    """One event of the group mptcp_pm_events. Fields that its type does not carry are 0 or "".

    ``type`` is an EventType or a number that this version does not know. ``error`` is an errno, and
    ``reset_reason`` that of MP_TCPRST (RFC 8684, section 3.6) or -1.
    """

    type: int
    token: int
    family: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    local_id: int
    remote_id: int
    backup: bool
    error: int
    reset_reason: int
    server_side: bool
    deny_join_id0: bool


class RawEvent(NamedTuple):
    """An event as it came. Decoding waits until somebody needs it.

    ``outcomes`` tells for each of the commands that were armed for this event whether the kernel
    refused it, and ``took_s`` is the time from reading the event to having sent them, in seconds;
    they are None and 0 where nothing was armed. ``over``: the session's CLOSED has come too.
    """

    type: int
    data: bytes
    decoder: Callable[[bytes], MptcpEvent]
    outcomes: Sequence[KernelRefused | None] | None = None
    took_s: float = 0.0
    over: bool = False

    def decode(self) -> MptcpEvent:
        return self.decoder(self.data)


class SubflowRecord(NamedTuple):
    """One TCP subflow of a sock_diag dump. v4-mapped addresses are IPv4 text.

    ``state`` is a TcpState and ``flags`` UlpFlag bits, as plain integers; ``ifindex`` is the interface
    the socket is bound to, or 0. The kernel leaves ``remote_token`` 0 on the client's initial subflow.
    ``mark`` is SO_MARK. ``unacked`` is in segments; ``backoff`` counts the doublings of the retransmission
    timeout, and ``retransmits`` how often what waits for an answer was sent again. ``rtt_us`` is the
    smoothed round-trip time, 0 for not measured; ``all_retransmits`` counts segments over its whole life.
    """

    token: int
    remote_token: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    socket_family: int
    state: int
    flags: int
    local_id: int
    remote_id: int
    cookie: int
    cgroup_id: int
    ifindex: int
    unacked: int = 0
    backoff: int = 0
    bytes_acked: int = 0
    bytes_received: int = 0
    mark: int = 0
    rtt_us: int = 0
    retransmits: int = 0
    all_retransmits: int = 0

    @property
    def pair(self) -> Pair:
        return Pair(self.local, self.remote, self.remote_port)

    @property
    def figures(self) -> Figures:
        return Figures(self.bytes_acked, self.bytes_received, self.all_retransmits, self.rtt_us)

    @property
    def is_initial(self) -> bool:
        return not self.flags & _JOINED

    @property
    def is_established(self) -> bool:
        """The TCP handshake is over; the subflow may be closing already."""
        return self.state not in _OPENING_STATES

    @property
    def is_live(self) -> bool:
        """A subflow of its session; not one that has ended and whose FIN may be on the way for minutes."""
        return self.state in LIVE_STATES

    @property
    def is_fully_established(self) -> bool:
        """The MPTCP handshake is over as well (RFC 8684, sections 3.1 and 3.2)."""
        return bool(self.flags & _FULLY_ESTABLISHED)

    @property
    def opened_here(self) -> bool:
        """This end sent its SYN."""
        return bool(self.flags & _OPENED_HERE)

    @property
    def backup(self) -> bool:
        return bool(self.flags & _BACKUP)

    @property
    def peer_backup(self) -> bool:
        return bool(self.flags & _PEER_BACKUP)


class FinalFigures(NamedTuple):
    """What a subflow had carried when its socket was closed, as a sock_ops program reported it."""

    local: str
    local_port: int
    remote: str
    remote_port: int
    figures: Figures


# Either says which subflow of which session: token, local, local_port, remote, remote_port and both ids.
SubflowAddress = MptcpEvent | SubflowRecord


class SocketRecord(NamedTuple):
    """Any TCP socket of a sock_diag dump, listeners too (their remote port is 0).

    ``inode`` is that of its descriptors (``socket:[inode]``), 0 where it has none; ``cgroup_id`` is 0 where
    the kernel does not tell. ``mptcp``: it was made as an MPTCP socket, or belongs to a session. ``token``
    and ``flags`` (UlpFlag bits) are 0 without that, ``token`` also where MP_CAPABLE was never sent.
    ``retransmits`` counts segments over its whole life.
    """

    local: str
    local_port: int
    remote: str
    remote_port: int
    state: int
    inode: int
    cgroup_id: int
    ifindex: int
    mptcp: bool
    token: int
    flags: int
    retransmits: int

    @property
    def is_listener(self) -> bool:
        return self.state == TcpState.LISTEN

    @property
    def is_join(self) -> bool:
        return bool(self.flags & _JOINED)


class SessionInfo(NamedTuple):
    """struct mptcp_info of a session, and whose it is.

    ``remote_key``: the peer's key came. ``extra_subflows`` leaves the initial one out. Linux before 6.5 does
    not count: ``counted`` is false and the counters are 0, thus those of the subflows have to do.
    """

    token: int
    state: int
    uid: int
    inode: int
    cgroup_id: int
    fallback: bool
    extra_subflows: int
    addresses_announced: int
    addresses_accepted: int
    counted: bool
    retransmits: int
    bytes_retransmitted: int
    bytes_sent: int
    bytes_received: int
    bytes_acked: int
    remote_key: bool = False


class Rises(NamedTuple):
    """By how much counters of the network namespace rose (those that did), and within which time."""

    by: Mapping[str, int]
    seconds: float


class RouteOver(NamedTuple):
    """A route over an interface that leads to some address; ``gateway`` is "" on the link itself."""

    table: int
    gateway: str


class PathFacts(NamedTuple):
    """What the kernel says of the packets between two addresses.

    ``interface`` has the local one. ``leaves_by`` is where packets of an unbound socket leave, "" where
    ``error`` says why nowhere; ``answers`` is the same for a packet without a mark, by which rp_filter judges
    what arrives. ``rp_filter`` has the sysctl of all interfaces and of this one; IPv6 has none. ``routes``
    lead to the remote address over ``interface``.
    """

    interface: str
    leaves_by: str = ""
    error: str = ""
    answers: str = ""
    rp_filter: tuple[int, int] = (0, 0)
    routes: tuple[RouteOver, ...] = ()

    @property
    def drops_answers(self) -> bool:
        """Whether strict rp_filter drops what arrives from the remote address on ``interface``."""
        return max(self.rp_filter) == 1 and self.answers != self.interface


class CreateCommand(NamedTuple):
    """The bytes of a SUBFLOW_CREATE that come before the session's token, and those after it."""

    head: bytes
    tail: bytes
