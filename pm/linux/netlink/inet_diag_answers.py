# SPDX-License-Identifier: Apache-2.0
"""Answers of NETLINK_SOCK_DIAG about MPTCP sessions and subflows, parsed by hand for speed. Pure.

Sources: include/uapi/linux/inet_diag.h, net/mptcp/diag.c, struct tcp_info in include/uapi/linux/tcp.h,
struct mptcp_info in mptcp.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from pm.errors import KernelRefused
from pm.kernel import SessionInfo, SubflowRecord, TcpState
from pm.linux.ip import ip_text
from pm.linux.netlink import framing
from pm.linux.netlink.framing import NetlinkMessage
from pm.linux.netlink.inet_diag_requests import CONG, INFO
from pm.model import Figures
from pm.names import show_name

T = TypeVar("T")
MARK, ULP_INFO, SK_BPF_STORAGES, CGROUP_ID = 15, 19, 20, 21  # INET_DIAG_*
ULP_INFO_MPTCP = 3
TOKEN_REM, TOKEN_LOC, FLAGS, ID_REM, ID_LOC = 1, 2, 8, 9, 10  # MPTCP_SUBFLOW_ATTR_*
STORAGE_VALUE = 3  # SK_DIAG_BPF_STORAGE_MAP_VALUE
INFO_FALLBACK, INFO_REMOTE_KEY = 1, 2  # MPTCP_INFO_FLAG_*

# struct inet_diag_msg, idiag_cookie as one word
_MSG = struct.Struct("=BB2x HH16s16s IQ 12xII")
_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")
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
# Of struct tcp_info: retransmits, backoff, unacked, rtt, total_retrans, bytes_acked, bytes_received.
_PROGRESS = struct.Struct("=2xBxB19xI40xI28xI16xQQ")
# struct mptcp_info: what all supported kernels have, and what was added behind (struct and offset).
_MPTCP_INFO = struct.Struct("=BBB5xII")
_MPTCP_COUNTERS, _MPTCP_COUNTERS_AT = struct.Struct("=IQQQQ"), 44  # retransmits to bytes_acked


class SubflowStats(NamedTuple):
    """struct tcp_info of a subflow. Times are in the unit named, rates in bytes per second.

    ``ifindex`` is the interface the socket is bound to, or 0.
    """

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
    ifindex: int

    @property
    def figures(self) -> Figures:
        return Figures(self.bytes_acked, self.bytes_received, self.retransmits, self.rtt_us)


class _Ulp(NamedTuple):
    """What MPTCP tells of a subflow; ``flags`` are UlpFlag bits."""

    token: int
    remote_token: int
    flags: int
    local_id: int
    remote_id: int


def read_part(
    data: bytes, found: list[T], parse: Callable[[bytes, NetlinkMessage], T | None]
) -> tuple[bool, bool]:
    """Append what ``parse`` makes of one part of a dump; whether it is the last, and inconsistent.

    Raises KernelRefused where the dump ends with an error.
    """
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


def parse_subflow(data: bytes, message: NetlinkMessage) -> SubflowRecord | None:
    """One socket of a dump or a look-up; None for a TCP socket that is not an MPTCP subflow."""
    cgroup_id = info_at = mark = 0
    ulp: _Ulp | None = None
    for type_, start, end in framing.attributes(data, message.start + _MSG.size, message.end):
        if type_ == CGROUP_ID:
            (cgroup_id,) = _U64.unpack_from(data, start)
        elif type_ == ULP_INFO:
            ulp = _ulp_info(data, start, end)
        elif type_ == INFO and end - start >= _PROGRESS.size:
            info_at = start
        elif type_ == MARK:
            (mark,) = _U32.unpack_from(data, start)
    if ulp is None:
        return None
    token, remote_token, flags, local_id, remote_id = ulp
    family, state, local_port, remote_port, local, remote, ifindex, cookie, _, _ = _MSG.unpack_from(
        data, message.start
    )
    if family == socket.AF_INET:
        local, remote = local[:4], remote[:4]
    retransmits, backoff, unacked, rtt_us, all_retransmits, bytes_acked, bytes_received = (
        _PROGRESS.unpack_from(data, info_at) if info_at else (0, 0, 0, 0, 0, 0, 0)
    )
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
        unacked,
        backoff,
        bytes_acked,
        bytes_received,
        mark,
        rtt_us,
        retransmits,
        all_retransmits,
    )


def _ulp_info(data: bytes, start: int, end: int) -> _Ulp | None:
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
        return _Ulp(token, remote_token, flags, local_id, remote_id)
    return None


def parse_cgroup(data: bytes, message: NetlinkMessage) -> tuple[int, int] | None:
    """(cgroup id, local port) of a socket; None where the kernel tells no cgroup."""
    for type_, start, _ in framing.attributes(data, message.start + _MSG.size, message.end):
        if type_ == CGROUP_ID:
            return _U64.unpack_from(data, start)[0], socket.ntohs(_MSG.unpack_from(data, message.start)[2])
    return None


def parse_storage(data: bytes, message: NetlinkMessage) -> tuple[int, bytes] | None:
    """(cookie, value) of a socket; None where it has no value in the map."""
    cookie = _MSG.unpack_from(data, message.start)[7]
    for type_, start, end in framing.attributes(data, message.start + _MSG.size, message.end):
        if type_ != SK_BPF_STORAGES:
            continue
        for _, storage, storage_end in framing.attributes(data, start, end):
            for attribute, at, stop in framing.attributes(data, storage, storage_end):
                if attribute == STORAGE_VALUE:
                    return cookie, data[at:stop]
    return None


def parse_subflow_stats(data: bytes, message: NetlinkMessage) -> SubflowStats | None:
    """The figures of one subflow; None in TIME_WAIT, for a connection request, and for a listener."""
    name, info = "", b""
    for type_, start, end in framing.attributes(data, message.start + _MSG.size, message.end):
        if type_ == INFO:
            info = data[start:end]
        elif type_ == CONG:
            name = show_name(data[start : end - 1])
    _, state, _, _, _, _, ifindex, cookie, _, _ = _MSG.unpack_from(data, message.start)
    # No tcp_info: TIME_WAIT, or a connection request. LISTEN: the look-up falls back to listeners.
    if not info or state == TcpState.LISTEN:
        return None
    (
        mss, lost, last_sent_ms, last_received_ms, rtt_us, rttvar_us, ssthresh, cwnd, retransmits,
        pacing_rate, bytes_acked, bytes_received, min_rtt_us, delivery_rate, bytes_sent, bytes_retransmitted,
    ) = _TCP_INFO.unpack_from(info.ljust(_TCP_INFO.size, b"\0"))  # fmt: skip
    return SubflowStats(
        rtt_us, rttvar_us, min_rtt_us, cwnd, ssthresh, mss, name,
        bytes_acked, bytes_sent, bytes_received, retransmits, bytes_retransmitted,
        lost, delivery_rate, pacing_rate, last_sent_ms, last_received_ms, cookie, ifindex,
    )  # fmt: skip


def parse_session_info(data: bytes, message: NetlinkMessage) -> SessionInfo | None:
    """The figures of one session; None for a listener, and where the kernel sends no mptcp_info."""
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
        fallback=bool(flags & INFO_FALLBACK),
        extra_subflows=extra_subflows,
        addresses_announced=announced,
        addresses_accepted=accepted,
        counted=counted,
        retransmits=retransmits,
        bytes_retransmitted=bytes_retransmitted,
        bytes_sent=bytes_sent,
        bytes_received=bytes_received,
        bytes_acked=bytes_acked,
        remote_key=bool(flags & INFO_REMOTE_KEY),
    )
