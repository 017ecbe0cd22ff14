# SPDX-License-Identifier: Apache-2.0
"""In which cgroups the TCP sockets of the calling thread's network namespace are."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator

from pm.errors import KernelRefused
from pm.linux.netlink import framing
from pm.linux.netlink.inet_diag_answers import parse_cgroup, read_part
from pm.linux.netlink.inet_diag_filter import CGROUPS_MAX
from pm.linux.netlink.inet_diag_requests import NETLINK_SOCK_DIAG, sockets_request

RECEIVE_BYTES = 64 << 10


def cgroups_of_sockets(known: Collection[int] = ()) -> set[int]:
    """Ids of the cgroups of all TCP sockets, listeners too; the kernel leaves out those of ``known``.

    Raises KernelRefused.
    """
    left_out = list(known)[:CGROUPS_MAX]
    return {cgroup_id for cgroup_id, _ in _sockets(left_out)} - {0}


def own_cgroup() -> int:
    """The id of this process's own cgroup, which it may not see; 0 where the kernel does not tell.

    A socket of ours tells: it listens on ``lo`` for a moment, and nobody can connect to it from elsewhere.
    """
    try:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            listener.listen(0)
            port = listener.getsockname()[1]
            return next((cgroup_id for cgroup_id, local_port in _sockets(()) if local_port == port), 0)
    except (OSError, KernelRefused):
        return 0


def _sockets(left_out: Collection[int]) -> Iterator[tuple[int, int]]:
    for family in (socket.AF_INET, socket.AF_INET6):
        with framing.open_socket(NETLINK_SOCK_DIAG) as sock:
            try:
                sock.send(sockets_request(family, left_out))
                done = False
                while not done:
                    found: list[tuple[int, int]] = []
                    done, _ = read_part(sock.recv(RECEIVE_BYTES), found, parse_cgroup)
                    yield from found
            except OSError as e:
                raise KernelRefused("listing sockets", e.errno or 0) from e
