# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel's routing says of one address (RTM_GETROUTE). The answer is there when send() returns."""

from __future__ import annotations

import socket
import struct

from pm.errors import KernelRefused
from pm.linux.ip import ip_bytes
from pm.linux.netlink import framing
from pm.model import family_of

RTM_GETROUTE = 26
RTA_DST = 1
RTN_LOCAL = 2

RTMSG = struct.Struct("=8BI")  # struct rtmsg: family, dst_len, …, type at the eighth byte, flags


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
    return bool(RTMSG.unpack_from(data, message.start)[7] == RTN_LOCAL)
