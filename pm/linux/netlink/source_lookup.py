# SPDX-License-Identifier: GPL-2.0-only
"""Which source address the kernel takes for a destination, where nobody chose one."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from pm.linux.ip import ip_text
from pm.linux.netlink import framing
from pm.linux.netlink.route_lookup import RTMSG, pack_lookup

RTM_NEWROUTE = 24
RTA_OIF, RTA_PREFSRC = 4, 7

RT_TABLE_UNSPEC = 0
RTM_F_LOOKUP_TABLE = 0x1000  # without it IPv4 says "main" always

_TABLE_OFFSET = 4  # of rtm_table in it
_U32 = struct.Struct("=I")


class SourceLookup:
    """Asks the kernel; made by ``open``. A question takes some microseconds."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sequence = 0

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self]:
        """Ask in this network namespace. Raises OSError."""
        with framing.open_socket(socket.NETLINK_ROUTE) as sock:
            yield cls(sock)

    def source_of(self, ifindex: int, destination: str) -> str:
        """The source address over an interface (0: any), "" where the kernel has no route or takes none.

        Without RTA_SRC the kernel chooses as for an unbound socket: RFC 6724 with ``use_tempaddr``, or the
        route's ``src``.
        """
        self._sequence += 1
        oif = framing.pack_attribute(RTA_OIF, _U32.pack(ifindex)) if ifindex else b""
        request = pack_lookup(destination, oif, flags=RTM_F_LOOKUP_TABLE, sequence=self._sequence)
        try:
            self._socket.send(request)
            return self._answer()
        except OSError:
            return ""  # out of memory, say: the caller has a rule of its own

    def _answer(self) -> str:
        """The kernel has answered inside send(), with one message: a route or an error."""
        while True:
            data = self._socket.recv(65536)
            message = framing.message_at(data, 0)
            if message and message.sequence == self._sequence:
                return _source(data, message) if message.type == RTM_NEWROUTE else ""


def _source(data: bytes, message: framing.NetlinkMessage) -> str:
    # Of IPv4, with RTA_OIF, there is an answer in any case: without a route it has no table.
    if data[message.start + _TABLE_OFFSET] == RT_TABLE_UNSPEC:
        return ""
    for type_, start, end in framing.attributes(data, message.start + RTMSG.size, message.end):
        if type_ == RTA_PREFSRC:
            return ip_text(data[start:end])
    return ""
