# SPDX-License-Identifier: Apache-2.0
"""All TCP sockets of the calling thread's network namespace, whether MPTCP knows them or not."""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterator

from pm.errors import KernelRefused
from pm.kernel import SocketRecord
from pm.linux.ip import ip_text
from pm.linux.netlink import framing
from pm.linux.netlink.framing import NetlinkMessage
from pm.linux.netlink.inet_diag_answers import (
    CGROUP_ID,
    FLAGS,
    TOKEN_LOC,
    ULP_INFO,
    ULP_INFO_MPTCP,
    read_part,
)
from pm.linux.netlink.inet_diag_requests import INFO, every_request

NETLINK_SOCK_DIAG = 4
RECEIVE_BYTES = 64 << 10
ULP_INFO_NAME = 1

# struct inet_diag_msg: family, state, both ports and addresses, interface, inode
_MSG = struct.Struct("=BB2x HH16s16s I8x 16xI")
_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")
_TOTAL_RETRANS_AT = 100  # tcpi_total_retrans in struct tcp_info


def dump_sockets(ports: Collection[tuple[int, int]] = ()) -> Iterator[list[SocketRecord]]:
    """Listeners and connections, part by part as the caller asks; not those in TIME_WAIT.

    ``ports``: only those with one of these (local, remote) ports. Raises KernelRefused.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            with framing.open_socket(NETLINK_SOCK_DIAG) as sock:
                sock.send(every_request(family, ports))
                done = False
                while not done:
                    found: list[SocketRecord] = []
                    done, _ = read_part(sock.recv(RECEIVE_BYTES), found, parse_socket)
                    yield found
        except OSError as e:
            raise KernelRefused("listing sockets", e.errno or 0) from e


def parse_socket(data: bytes, message: NetlinkMessage) -> SocketRecord:
    cgroup_id = token = flags = retransmits = 0
    mptcp = False
    for type_, start, end in framing.attributes(data, message.start + _MSG.size, message.end):
        if type_ == CGROUP_ID:
            (cgroup_id,) = _U64.unpack_from(data, start)
        elif type_ == INFO and end - start >= _TOTAL_RETRANS_AT + _U32.size:
            (retransmits,) = _U32.unpack_from(data, start + _TOTAL_RETRANS_AT)
        elif type_ == ULP_INFO:
            mptcp, token, flags = _ulp(data, start, end)
    family, state, local_port, remote_port, local, remote, ifindex, inode = _MSG.unpack_from(
        data, message.start
    )
    if family == socket.AF_INET:
        local, remote = local[:4], remote[:4]
    return SocketRecord(
        ip_text(local),
        socket.ntohs(local_port),
        ip_text(remote),
        socket.ntohs(remote_port),
        state,
        inode,
        cgroup_id,
        ifindex,
        mptcp,
        token,
        flags,
        retransmits,
    )


def _ulp(data: bytes, start: int, end: int) -> tuple[bool, int, int]:
    """(whether it is MPTCP's, token, flags). Of a listener there is only the name."""
    mptcp, token, flags = False, 0, 0
    for type_, at, stop in framing.attributes(data, start, end):
        if type_ == ULP_INFO_NAME:
            mptcp = data[at:stop].rstrip(b"\0") == b"mptcp"
        elif type_ == ULP_INFO_MPTCP:
            for attribute, inner, _ in framing.attributes(data, at, stop):
                if attribute == TOKEN_LOC:
                    (token,) = _U32.unpack_from(data, inner)
                elif attribute == FLAGS:
                    (flags,) = _U32.unpack_from(data, inner)
    return mptcp, token, flags
