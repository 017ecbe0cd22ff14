# SPDX-License-Identifier: Apache-2.0
"""By which interface the SYN of a subflow would leave: the lookup as the kernel makes it for that socket.

The SYN has the session's mark and the user id 0, whatever the application's is (``mptcp_sock_graft``).
docs/decisions/0030-subflows-bound-to-interfaces.md says why the two families are asked in different ways.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import NamedTuple

from pm.linux.ip import ip_bytes
from pm.linux.netlink import framing
from pm.linux.netlink.route_lookup import (
    RT_TABLE_UNSPEC,
    RTA_OIF,
    RTM_NEWROUTE,
    RTMSG,
    RTN_UNICAST,
    TABLE_AT,
    TYPE_AT,
    U32,
    RouteQuestions,
)
from pm.model import family_of

RTA_SRC, RTA_MARK, RTA_UID, RTA_IP_PROTO, RTA_DPORT = 2, 16, 25, 27, 29
SO_BINDTOIFINDEX = 62  # include/uapi/asm-generic/socket.h

_U8, _BE16 = struct.Struct("=B"), struct.Struct("!H")
_UID = framing.pack_attribute(RTA_UID, U32.pack(0))
_TCP = framing.pack_attribute(RTA_IP_PROTO, _U8.pack(socket.IPPROTO_TCP))
# What the kernel says where there is no route; any other error is about the question.
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)


class Flow(NamedTuple):
    """A subflow before it is opened; ``mark`` is SO_MARK of its session."""

    local: str
    remote: str
    remote_port: int
    mark: int


class NoRoute(Exception):
    """The kernel has none; the text is the name of its error."""


class PathLookup(RouteQuestions):
    """Each question raises NoRoute, and OSError where the kernel does not answer."""

    def interface_of(self, flow: Flow) -> int:
        """By which interface packets of an unbound socket leave."""
        found, _ = self._look_up(flow, framing.pack_attribute(RTA_SRC, ip_bytes(flow.local)))
        return found

    def try_bound(self, flow: Flow, ifindex: int) -> None:
        """Whether packets of a socket that is bound to an interface leave at all."""
        if family_of(flow.local) == 6:
            _connect(flow, ifindex)
            return
        source = framing.pack_attribute(RTA_SRC, ip_bytes(flow.local))
        _, table = self._look_up(flow, source, framing.pack_attribute(RTA_OIF, U32.pack(ifindex)))
        if table == RT_TABLE_UNSPEC:
            raise NoRoute(errno.errorcode[errno.ENETUNREACH])

    def _look_up(self, flow: Flow, *attributes: bytes) -> tuple[int, int]:
        """(interface, table)."""
        port = framing.pack_attribute(RTA_DPORT, _BE16.pack(flow.remote_port))
        mark = framing.pack_attribute(RTA_MARK, U32.pack(flow.mark))
        return _route(*self._ask(flow.remote, *attributes, mark, _UID, _TCP, port))


def _route(data: bytes, message: framing.NetlinkMessage) -> tuple[int, int]:
    if message.type != RTM_NEWROUTE:
        _refused(framing.error_of(data, message))
    if data[message.start + TYPE_AT] != RTN_UNICAST:
        raise NoRoute("not a unicast route")
    for type_, start, _ in framing.attributes(data, message.start + RTMSG.size, message.end):
        if type_ == RTA_OIF:
            return U32.unpack_from(data, start)[0], data[message.start + TABLE_AT]
    raise NoRoute("a route without an interface")


def _connect(flow: Flow, ifindex: int) -> None:
    """RTM_GETROUTE of IPv6 ignores RTA_OIF beside RTA_SRC. A UDP socket sends nothing when it connects."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, ifindex)
        if flow.mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, flow.mark)
        try:
            sock.bind((flow.local, 0))
            sock.connect((flow.remote, flow.remote_port))
        except OSError as e:
            _refused(e.errno or 0)


def _refused(code: int) -> None:
    if code in (*_NO_ROUTE, errno.EADDRNOTAVAIL, errno.ENODEV):
        raise NoRoute(errno.errorcode[code])
    raise OSError(code, os.strerror(code))
