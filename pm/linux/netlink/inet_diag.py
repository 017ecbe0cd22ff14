# SPDX-License-Identifier: GPL-2.0-only
"""The messages of NETLINK_SOCK_DIAG about MPTCP sessions and subflows: requests packed, answers parsed.

Pure; packed by hand for speed. Sources: include/uapi/linux/inet_diag.h, net/mptcp/diag.c,
net/mptcp/mptcp_diag.c, struct tcp_info in include/uapi/linux/tcp.h, mptcp_info in mptcp.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Collection
from enum import IntEnum, IntFlag
from typing import NamedTuple, TypeVar

from pm.errors import KernelRefused
from pm.linux.ip import ip_bytes, ip_text
from pm.linux.netlink import framing

T = TypeVar("T")
SOCK_DIAG_BY_FAMILY = 20
IPPROTO_MPTCP = 262
REQ_BYTECODE, REQ_SK_BPF_STORAGES = 1, 2  # INET_DIAG_REQ_*
REQ_PROTOCOL = 3  # INET_DIAG_REQ_PROTOCOL: 262 does not fit the u8 of the request
REQ_MAP_FD, STORAGE_VALUE = 1, 3  # SK_DIAG_BPF_STORAGE_*
JMP, S_EQ, D_EQ = 1, 11, 12  # INET_DIAG_BC_*
NO_COOKIE = 0xFFFFFFFF
INFO, CONG, ULP_INFO, SK_BPF_STORAGES, CGROUP_ID = 2, 4, 19, 20, 21  # INET_DIAG_*
ULP_INFO_MPTCP = 3
TOKEN_REM, TOKEN_LOC, FLAGS, ID_REM, ID_LOC = 1, 2, 8, 9, 10  # MPTCP_SUBFLOW_ATTR_*


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


CLOSING = (TcpState.FIN_WAIT1, TcpState.FIN_WAIT2, TcpState.LAST_ACK, TcpState.CLOSING)


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


class SubflowRecord(NamedTuple):
    """One TCP subflow of a dump (pm.kernel.Found). v4-mapped addresses are IPv4 text.

    ``socket_family`` is 4 or 6; ``state`` is a TcpState and ``flags`` UlpFlag bits, as plain integers;
    ``ifindex`` is the interface the socket is bound to, or 0. The kernel leaves ``remote_token`` 0 on the
    client's initial subflow.
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

    @property
    def is_initial(self) -> bool:
        return not self.flags & (UlpFlag.JOIN_LOC | UlpFlag.JOIN_REM)

    @property
    def is_established(self) -> bool:
        """The TCP handshake is over; the subflow may be closing already."""
        return self.state not in (TcpState.SYN_SENT, TcpState.SYN_RECV)

    @property
    def is_closing(self) -> bool:
        """This end has closed it; its FIN may be on the way for minutes where a link is down."""
        return self.state in CLOSING

    @property
    def is_fully_established(self) -> bool:
        """The MPTCP handshake is over as well (RFC 8684, sections 3.1 and 3.2)."""
        return bool(self.flags & UlpFlag.FULLY_ESTABLISHED)

    @property
    def opened_here(self) -> bool:
        """This end sent its SYN."""
        return bool(self.flags & (UlpFlag.MCAP_LOC | UlpFlag.JOIN_LOC))

    @property
    def backup(self) -> bool:
        return bool(self.flags & UlpFlag.BACKUP_LOC)

    @property
    def peer_backup(self) -> bool:
        return bool(self.flags & UlpFlag.BACKUP_REM)


class SubflowStats(NamedTuple):
    """struct tcp_info of a subflow, and whose it is. Times in the unit named, rates in bytes per second."""

    state: int
    rtt_us: int
    rttvar_us: int
    min_rtt_us: int
    cwnd: int
    ssthresh: int
    mss: int
    congestion_control: str
    bytes_acked: int
    bytes_sent: int
    bytes_received: int
    retransmits: int
    bytes_retransmitted: int
    lost: int
    delivery_rate: int
    pacing_rate: int
    last_sent_ms: int
    last_received_ms: int
    cookie: int
    cgroup_id: int
    ifindex: int


class SessionInfo(NamedTuple):
    """struct mptcp_info of a session, and whose it is (pm.kernel.SessionFigures).

    ``extra_subflows`` leaves the initial one out. Linux before 6.5 does not count: ``counted`` is false and
    the counters are 0, the subflows' own have to do.
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


# struct inet_diag_req_v2 with idiag_cookie as two words
_REQUEST = struct.Struct("=BBBxI HH16s16s III")
_OPERATION = struct.Struct("=BBH")  # struct inet_diag_bc_op
# struct inet_diag_msg, idiag_cookie as one word
_MSG = struct.Struct("=BB2x HH16s16s IQ 12xII")
_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")
_OF_MPTCP = framing.pack_attribute(REQ_PROTOCOL, _U32.pack(IPPROTO_MPTCP))
# struct tcp_info from its start to tcpi_bytes_retrans, "x" for what is skipped.
_TCP_INFO = struct.Struct(
    "=8x 8xI4x 8xI8x"  # rto, ato, snd_mss, rcv_mss, unacked, sacked, lost, retrans, fackets
    "I4xI4x"  # last_data_sent, last_ack_sent, last_data_recv, last_ack_recv
    "8xIIII8x"  # pmtu, rcv_ssthresh, rtt, rttvar, snd_ssthresh, snd_cwnd, advmss, reordering
    "8xI"  # rcv_rtt, rcv_space, total_retrans
    "Q8xQQ"  # pacing_rate, max_pacing_rate, bytes_acked, bytes_received
    "12xI8x"  # segs_out, segs_in, notsent_bytes, min_rtt, data_segs_in, data_segs_out
    "Q32x"  # delivery_rate, busy_time, rwnd_limited, sndbuf_limited, delivered, delivered_ce
    "QQ"  # bytes_sent, bytes_retrans
)
# struct mptcp_info: what all supported kernels have, and what was added behind (struct and offset).
_MPTCP_INFO = struct.Struct("=BBB5xII")
_MPTCP_COUNTERS, _MPTCP_COUNTERS_AT = struct.Struct("=IQQQQ"), 44  # retransmits to bytes_acked
_INFO_FALLBACK = 1  # MPTCP_INFO_FLAG_FALLBACK

# Every state a subflow can act in; not LISTEN, CLOSE and TIME_WAIT.
_STATES = sum(
    1 << state
    for state in (
        TcpState.ESTABLISHED, TcpState.SYN_SENT, TcpState.SYN_RECV, TcpState.CLOSE_WAIT, *CLOSING,
    )
)  # fmt: skip


Upper = tuple[int, int, int, int, int]  # token, remote token, UlpFlag bits, local id, remote id


def dump_request(family: int) -> bytes:
    """All TCP sockets of a family (AF_INET, AF_INET6) with INFO, without which there is no ULP_INFO."""
    return _dump(family, socket.IPPROTO_TCP, _STATES, 1 << INFO - 1)


def storages_request(family: int, map_fd: int, ports: Collection[tuple[int, int]]) -> bytes:
    """Of the TCP sockets with one of these (local, remote) ports, the values of an sk_storage map of ours."""
    storage = framing.pack_attribute(REQ_MAP_FD, _U32.pack(map_fd))
    return _dump(
        family,
        socket.IPPROTO_TCP,
        _STATES,
        0,
        framing.pack_attribute(REQ_BYTECODE, _any_of(ports)),
        framing.pack_attribute(REQ_SK_BPF_STORAGES, storage),
    )


def _any_of(ports: Collection[tuple[int, int]]) -> bytes:
    """The kernel's filter language: an operation has the distances to go where it holds and where not.

    A comparison's port is in the operation behind it. To reach the end is to pass, to go beyond to fail.
    """
    comparison, jump = 2 * _OPERATION.size, _OPERATION.size
    block = 2 * comparison + jump
    code = b""
    for i, (local, remote) in enumerate(ports, 1):
        behind = (len(ports) - i) * block  # what follows this block
        beyond = 0 if behind else _OPERATION.size
        code += _OPERATION.pack(S_EQ, comparison, block + beyond) + _OPERATION.pack(0, 0, local)
        code += _OPERATION.pack(D_EQ, comparison, comparison + jump + beyond) + _OPERATION.pack(0, 0, remote)
        code += _OPERATION.pack(JMP, jump, jump + behind)
    return code


def lookup_request(local: str, local_port: int, remote: str, remote_port: int, ifindex: int) -> bytes:
    """One TCP socket, with INFO and the name of its congestion control.

    ``ifindex`` finds both unbound sockets and those bound to that interface, 0 unbound ones only.
    """
    source, destination = ip_bytes(local), ip_bytes(remote)
    wanted = _REQUEST.pack(
        socket.AF_INET if len(source) == 4 else socket.AF_INET6,
        socket.IPPROTO_TCP,
        1 << INFO - 1 | 1 << CONG - 1,
        0,
        socket.htons(local_port),
        socket.htons(remote_port),
        source,
        destination,
        ifindex,
        NO_COOKIE,
        NO_COOKIE,
    )
    return framing.pack(SOCK_DIAG_BY_FAMILY, framing.NLM_F_REQUEST, 0, wanted)


def session_request(token: int) -> bytes:
    """One MPTCP socket by its local token, which the kernel reads from the first word of the cookie."""
    wanted = _REQUEST.pack(
        socket.AF_INET, IPPROTO_MPTCP & 0xFF, 1 << INFO - 1, 0, 0, 0, b"", b"", 0, token, NO_COOKIE
    )
    return framing.pack(SOCK_DIAG_BY_FAMILY, framing.NLM_F_REQUEST, 0, wanted + _OF_MPTCP)


def protocol_request(protocol: int) -> bytes:
    """A dump of no state at all: the kernel answers ENOENT where it cannot diagnose the protocol."""
    return _dump(socket.AF_INET, protocol, 0, 0, framing.pack_attribute(REQ_PROTOCOL, _U32.pack(protocol)))


def _dump(family: int, protocol: int, states: int, answers: int, *attributes: bytes) -> bytes:
    """``states`` has a bit per TcpState, ``answers`` one per attribute of the answer, from 1 on."""
    wanted = _REQUEST.pack(family, protocol & 0xFF, answers, states, 0, 0, b"", b"", 0, 0, 0)
    flags = framing.NLM_F_REQUEST | framing.NLM_F_DUMP
    return framing.pack(SOCK_DIAG_BY_FAMILY, flags, 0, b"".join((wanted, *attributes)))


def read_part(
    data: bytes, found: list[T], parse: Callable[[bytes, framing.Message], T | None]
) -> tuple[bool, bool]:
    """Append what ``parse`` makes of one part of a dump; whether it is the last, and inconsistent."""
    inconsistent = False
    for message in framing.messages(data):
        inconsistent = inconsistent or bool(message.flags & framing.NLM_F_DUMP_INTR)
        if message.type in (framing.NLMSG_DONE, framing.NLMSG_ERROR):
            if code := framing.error_of(data, message):
                raise KernelRefused("listing sockets", code)
            return True, inconsistent
        answer = parse(data, message)
        if answer:
            found.append(answer)
    return False, inconsistent


def parse_subflow(data: bytes, message: framing.Message) -> SubflowRecord | None:
    """None for a TCP socket that is no MPTCP subflow."""
    cgroup_id = 0
    ulp: Upper | None = None
    for type_, start, end in framing.attributes(data, message.start + _MSG.size, message.end):
        if type_ == CGROUP_ID:
            (cgroup_id,) = _U64.unpack_from(data, start)
        elif type_ == ULP_INFO:
            ulp = _ulp_info(data, start, end)
    if ulp is None:
        return None
    token, remote_token, flags, local_id, remote_id = ulp
    family, state, local_port, remote_port, local, remote, ifindex, cookie, _, _ = _MSG.unpack_from(
        data, message.start
    )
    if family == socket.AF_INET:
        local, remote = local[:4], remote[:4]
    return SubflowRecord(
        token,
        remote_token,
        ip_text(local),
        socket.ntohs(local_port),
        ip_text(remote),
        socket.ntohs(remote_port),
        4 if family == socket.AF_INET else 6,
        state,
        flags,
        local_id,
        remote_id,
        cookie,
        cgroup_id,
        ifindex,
    )


def _ulp_info(data: bytes, start: int, end: int) -> Upper | None:
    """None for other upper layers. Reads no further than it must: the order differs between kernels."""
    token = remote_token = flags = local_id = remote_id = 0
    for type_, nested, nested_end in framing.attributes(data, start, end):
        if type_ != ULP_INFO_MPTCP:
            continue
        missing = 5
        for attribute, at, _ in framing.attributes(data, nested, nested_end):
            if attribute == TOKEN_LOC:
                (token,) = _U32.unpack_from(data, at)
            elif attribute == TOKEN_REM:
                (remote_token,) = _U32.unpack_from(data, at)
            elif attribute == FLAGS:
                (flags,) = _U32.unpack_from(data, at)
            elif attribute == ID_LOC:
                local_id = data[at]
            elif attribute == ID_REM:
                remote_id = data[at]
            else:
                continue
            missing -= 1
            if not missing:
                break
        return token, remote_token, flags, local_id, remote_id
    return None


def parse_storage(data: bytes, message: framing.Message) -> tuple[int, bytes] | None:
    """(cookie, value); None for a socket that has none in the map."""
    cookie = _MSG.unpack_from(data, message.start)[7]
    for type_, start, end in framing.attributes(data, message.start + _MSG.size, message.end):
        if type_ != SK_BPF_STORAGES:
            continue
        for _, storage, storage_end in framing.attributes(data, start, end):
            for attribute, at, stop in framing.attributes(data, storage, storage_end):
                if attribute == STORAGE_VALUE:
                    return cookie, data[at:stop]
    return None


def parse_subflow_stats(data: bytes, message: framing.Message) -> SubflowStats | None:
    cgroup_id, name, info = 0, "", b""
    for type_, start, end in framing.attributes(data, message.start + _MSG.size, message.end):
        if type_ == INFO:
            info = data[start:end]
        elif type_ == CONG:
            name = data[start : end - 1].decode()
        elif type_ == CGROUP_ID:
            (cgroup_id,) = _U64.unpack_from(data, start)
    _, state, _, _, _, _, ifindex, cookie, _, _ = _MSG.unpack_from(data, message.start)
    # No tcp_info: TIME_WAIT, or a connection request. LISTEN: the look-up falls back to listeners.
    if not info or state == TcpState.LISTEN:
        return None
    (
        mss, lost, last_sent_ms, last_received_ms, rtt_us, rttvar_us, ssthresh, cwnd, retransmits,
        pacing_rate, bytes_acked, bytes_received, min_rtt_us, delivery_rate, bytes_sent, bytes_retransmitted,
    ) = _TCP_INFO.unpack_from(info.ljust(_TCP_INFO.size, b"\0"))  # fmt: skip
    return SubflowStats(
        state, rtt_us, rttvar_us, min_rtt_us, cwnd, ssthresh, mss, name,
        bytes_acked, bytes_sent, bytes_received, retransmits, bytes_retransmitted,
        lost, delivery_rate, pacing_rate, last_sent_ms, last_received_ms, cookie, cgroup_id, ifindex,
    )  # fmt: skip


def parse_session_info(data: bytes, message: framing.Message) -> SessionInfo | None:
    cgroup_id, info = 0, b""
    for type_, start, end in framing.attributes(data, message.start + _MSG.size, message.end):
        if type_ == INFO:
            info = data[start:end]
        elif type_ == CGROUP_ID:
            (cgroup_id,) = _U64.unpack_from(data, start)
    _, state, _, _, _, _, _, _, uid, inode = _MSG.unpack_from(data, message.start)
    if len(info) < _MPTCP_INFO.size or state == TcpState.LISTEN:
        return None
    extra_subflows, announced, accepted, flags, token = _MPTCP_INFO.unpack_from(info)
    counted = len(info) >= _MPTCP_COUNTERS_AT + _MPTCP_COUNTERS.size
    counters = _MPTCP_COUNTERS.unpack_from(info, _MPTCP_COUNTERS_AT) if counted else (0,) * 5
    retransmits, bytes_retransmitted, bytes_sent, bytes_received, bytes_acked = counters
    return SessionInfo(
        token=token,
        state=state,
        uid=uid,
        inode=inode,
        cgroup_id=cgroup_id,
        fallback=bool(flags & _INFO_FALLBACK),
        extra_subflows=extra_subflows,
        addresses_announced=announced,
        addresses_accepted=accepted,
        counted=counted,
        retransmits=retransmits,
        bytes_retransmitted=bytes_retransmitted,
        bytes_sent=bytes_sent,
        bytes_received=bytes_received,
        bytes_acked=bytes_acked,
    )
