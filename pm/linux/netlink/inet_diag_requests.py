# SPDX-License-Identifier: Apache-2.0
"""Requests to NETLINK_SOCK_DIAG about MPTCP sessions and subflows, packed by hand for speed. Pure.

Sources: include/uapi/linux/inet_diag.h, net/mptcp/mptcp_diag.c.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection

from pm.kernel import CLOSING_STATES, TcpState
from pm.linux.ip import ip_bytes
from pm.linux.netlink import framing
from pm.linux.netlink.inet_diag_filter import any_of, none_of_cgroups

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
IPPROTO_MPTCP = 262
REQ_BYTECODE, REQ_SK_BPF_STORAGES = 1, 2  # INET_DIAG_REQ_*
REQ_PROTOCOL = 3  # INET_DIAG_REQ_PROTOCOL: 262 does not fit the u8 of the request
REQ_MAP_FD = 1  # SK_DIAG_BPF_STORAGE_REQ_MAP_FD
NO_COOKIE = 0xFFFFFFFF
INFO, CONG = 2, 4  # INET_DIAG_*: the request has a bit for each, from 1 on

# struct inet_diag_req_v2 with idiag_cookie as two words
_REQUEST = struct.Struct("=BBBxI HH16s16s III")
_U32 = struct.Struct("=I")
_IS_MPTCP = framing.pack_attribute(REQ_PROTOCOL, _U32.pack(IPPROTO_MPTCP))

# Every state a subflow can act in; not LISTEN, CLOSE and TIME_WAIT.
_STATES = sum(
    1 << state
    for state in (
        TcpState.ESTABLISHED, TcpState.SYN_SENT, TcpState.SYN_RECV, TcpState.CLOSE_WAIT, *CLOSING_STATES,
    )
)  # fmt: skip


def dump_request(family: int, *, opening: bool = False) -> bytes:
    """All TCP sockets of a family (AF_INET, AF_INET6) with INFO, without which there is no ULP_INFO.

    ``opening``: those in SYN_SENT only.
    """
    states = 1 << TcpState.SYN_SENT if opening else _STATES
    return _dump(family, socket.IPPROTO_TCP, states, 1 << INFO - 1)


def sockets_request(family: int, known_cgroups: Collection[int]) -> bytes:
    """All TCP sockets, listeners too, except those of these cgroups."""
    filters = [framing.pack_attribute(REQ_BYTECODE, none_of_cgroups(known_cgroups))] if known_cgroups else []
    return _dump(family, socket.IPPROTO_TCP, _STATES | 1 << TcpState.LISTEN, 0, *filters)


def every_request(family: int, ports: Collection[tuple[int, int]] = ()) -> bytes:
    """All TCP sockets with INFO, listeners too, or those with one of these (local, remote) ports."""
    filters = [framing.pack_attribute(REQ_BYTECODE, any_of(ports))] if ports else []
    return _dump(family, socket.IPPROTO_TCP, _STATES | 1 << TcpState.LISTEN, 1 << INFO - 1, *filters)


def storages_request(family: int, map_fd: int, ports: Collection[tuple[int, int]]) -> bytes:
    """The values of an sk_storage map, for the TCP sockets with one of these (local, remote) ports."""
    storage = framing.pack_attribute(REQ_MAP_FD, _U32.pack(map_fd))
    return _dump(
        family,
        socket.IPPROTO_TCP,
        _STATES,
        0,
        framing.pack_attribute(REQ_BYTECODE, any_of(ports)),
        framing.pack_attribute(REQ_SK_BPF_STORAGES, storage),
    )


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
    return framing.pack(SOCK_DIAG_BY_FAMILY, framing.NLM_F_REQUEST, 0, wanted + _IS_MPTCP)


def protocol_request(protocol: int) -> bytes:
    """A dump of no state at all: the kernel answers ENOENT where it cannot diagnose the protocol."""
    return _dump(socket.AF_INET, protocol, 0, 0, framing.pack_attribute(REQ_PROTOCOL, _U32.pack(protocol)))


def _dump(family: int, protocol: int, states: int, answers: int, *attributes: bytes) -> bytes:
    """``states`` has a bit per TcpState, ``answers`` one per attribute of the answer, from 1 on."""
    wanted = _REQUEST.pack(family, protocol & 0xFF, answers, states, 0, 0, b"", b"", 0, 0, 0)
    flags = framing.NLM_F_REQUEST | framing.NLM_F_DUMP
    return framing.pack(SOCK_DIAG_BY_FAMILY, flags, 0, b"".join((wanted, *attributes)))
