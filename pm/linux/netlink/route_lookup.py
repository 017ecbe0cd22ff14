# SPDX-License-Identifier: Apache-2.0
"""What the kernel's routing says of one address (RTM_GETROUTE)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from pm.errors import KernelRefused
from pm.linux.ip import ip_bytes
from pm.linux.netlink import framing
from pm.model import family_of

RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTA_DST, RTA_OIF = 1, 4
RTN_UNICAST, RTN_LOCAL = 1, 2
RT_TABLE_UNSPEC = 0
RTM_F_LOOKUP_TABLE = 0x1000  # without it IPv4 says "main" always

# struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
RTMSG = struct.Struct("=8BI")
TABLE_AT, TYPE_AT = 4, 7  # in it
U32 = struct.Struct("=I")


class RouteQuestions:
    """A socket to ask the kernel with; made by ``open``. A question takes some microseconds."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sequence = 0

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self]:
        """Ask in this network namespace. Raises OSError."""
        with framing.open_socket(socket.NETLINK_ROUTE) as sock:
            yield cls(sock)

    def _ask(
        self, destination: str, *attributes: bytes, flags: int = RTM_F_LOOKUP_TABLE
    ) -> tuple[bytes, framing.NetlinkMessage]:
        """The answer, which is a route or an error, with the bytes that it stands in.

        Of IPv4, with RTA_OIF, there is a route in any case: where the kernel has none it has no table.
        Raises OSError.
        """
        self._sequence += 1
        request = pack_lookup(destination, *attributes, flags=flags, sequence=self._sequence)
        self._socket.send(request)
        while True:  # the kernel has answered inside send(), with one message
            data = self._socket.recv(65536)
            message = framing.message_at(data, 0)
            if message and message.sequence == self._sequence:
                return data, message


def pack_lookup(ip: str, *attributes: bytes, flags: int = 0, sequence: int = 0) -> bytes:
    """RTM_GETROUTE for one destination. Raises OSError for text that is not an address."""
    packed = ip_bytes(ip)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    payload = RTMSG.pack(family, 8 * len(packed), 0, 0, 0, 0, 0, 0, flags)
    destination = framing.pack_attribute(RTA_DST, packed)
    return framing.pack(
        RTM_GETROUTE, framing.NLM_F_REQUEST, sequence, b"".join((payload, destination, *attributes))
    )


def source_for(remote: str, remote_port: int) -> str:
    """The local address that a new connection would have. Raises KernelRefused where there is no route."""
    with socket.socket(
        socket.AF_INET if family_of(remote) == 4 else socket.AF_INET6, socket.SOCK_DGRAM
    ) as sock:
        try:
            sock.connect((remote, remote_port))  # a UDP socket sends nothing
        except OSError as e:
            raise KernelRefused(f"finding a route to {remote}", e.errno or 0) from e
        return str(sock.getsockname()[0])


def is_local(ip: str) -> bool:
    """Whether packets to an address are for this network namespace, also where no interface has it.

    An error of the kernel (no route, a prohibiting one) means no; where it cannot be asked, nobody
    shall act, thus yes. Raises OSError for text that is not an address.
    """
    request = pack_lookup(ip)
    try:
        with framing.open_socket(socket.NETLINK_ROUTE) as sock:
            sock.send(request)
            data = sock.recv(8192)
    except OSError:
        return True
    message = framing.message_at(data, 0)
    if message is None or message.type == framing.NLMSG_ERROR:
        return False
    return data[message.start + TYPE_AT] == RTN_LOCAL
