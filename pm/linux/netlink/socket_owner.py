# SPDX-License-Identifier: Apache-2.0
"""Whose process is at the other end of a connection within this host (NETLINK_SOCK_DIAG)."""

from __future__ import annotations

import socket
import struct

from pm.errors import KernelRefused
from pm.kernel import TcpState
from pm.linux.netlink import framing
from pm.linux.netlink.inet_diag_requests import NETLINK_SOCK_DIAG, lookup_request

RECEIVE_BYTES = 64 << 10

# struct inet_diag_msg: state, user
_MSG = struct.Struct("=xB2x 48x 12xI4x")


def owner_of_peer(connection: socket.socket) -> int | None:
    """The user id of the process that opened this TCP connection; None where it is not open any more.

    A socket that its process has closed has no user: the kernel may call it root's. Raises KernelRefused.
    """
    try:
        (remote, remote_port, *_), (local, local_port, *_) = (
            connection.getpeername(),
            connection.getsockname(),
        )
    except OSError:  # it was reset
        return None
    try:
        with framing.open_socket(NETLINK_SOCK_DIAG) as sock:
            sock.send(lookup_request(remote, remote_port, local, local_port, 0))
            data = sock.recv(RECEIVE_BYTES)
    except OSError as e:
        raise KernelRefused("looking up a socket", e.errno or 0) from e
    message = framing.message_at(data, 0)
    if message is None or message.type == framing.NLMSG_ERROR:
        return None
    state, user = _MSG.unpack_from(data, message.start)
    return int(user) if state == TcpState.ESTABLISHED else None
