# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel's routing says of one address (RTM_GETROUTE). The answer is there when send() returns."""

from __future__ import annotations

import socket
import struct

from pm.linux.ip import ip_bytes
from pm.linux.netlink import framing

RTM_GETROUTE = 26
RTA_DST = 1
RTN_LOCAL = 2

_RTMSG = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, dst_len, …, type at the eighth byte, flags


def is_local(ip: str) -> bool:
    """Whether packets to an address are for this network namespace, also where no interface has it.

    An error of the kernel (no route, a prohibiting one) means no; where it cannot be asked, nobody
    shall act, thus yes. Raises OSError for text that is not an address.
    """
    packed = ip_bytes(ip)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    request = _RTMSG.pack(family, 8 * len(packed), 0, 0, 0, 0, 0, 0, 0)
    wanted = framing.pack_attribute(RTA_DST, packed)
    try:
        with framing.open_socket(socket.NETLINK_ROUTE) as sock:
            sock.send(framing.pack(RTM_GETROUTE, framing.NLM_F_REQUEST, 0, request + wanted))
            data = sock.recv(8192)
    except OSError:
        return True
    message = framing.message_at(data, 0)
    if message is None or message.type == framing.NLMSG_ERROR:
        return False
    return bool(_RTMSG.unpack_from(data, message.start)[7] == RTN_LOCAL)
