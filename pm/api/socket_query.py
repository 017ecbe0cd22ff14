# SPDX-License-Identifier: Apache-2.0
"""Which sockets a query of ``/v1/why`` is about. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from pm.api.input_shapes import INODES_MAX, ConnectionQuery
from pm.api.inputs import canonical
from pm.api.problems import BadRequest
from pm.kernel import SocketRecord
from pm.no_session import WILDCARDS
from pm.notation import parse_end

Wanted = Callable[[SocketRecord], bool]


def wanted_sockets(query: ConnectionQuery, cgroup_of: Callable[[SocketRecord], str | None]) -> Wanted:
    """Raises BadRequest with what is wrong."""
    given = [name for name in ("address", "cgroup", "inodes") if getattr(query, name) is not None]
    if len(given) != 1:
        raise _bad("", "give one of address, cgroup, inodes")
    if query.inodes is not None:
        return _by_inode(query.inodes)
    if query.cgroup is not None:
        return _by_cgroup(query.cgroup, cgroup_of)
    assert query.address is not None
    return _by_address(query.address)


def _by_inode(text: str) -> Wanted:
    if not re.fullmatch("[0-9]{1,20}(,[0-9]{1,20})*", text):
        raise _bad("inodes", "must be numbers with commas between them")
    inodes = {int(number) for number in text.split(",")} - {0}
    if len(inodes) > INODES_MAX:
        raise _bad("inodes", f"must be at most {INODES_MAX}, not {len(inodes)}")
    return lambda socket: socket.inode in inodes


def _by_cgroup(path: str, cgroup_of: Callable[[SocketRecord], str | None]) -> Wanted:
    if not path.startswith("/"):
        raise _bad("cgroup", "must start with `/`, the cgroup2 root")
    below = f"{path.rstrip('/')}/"
    inside: dict[int, bool] = {}

    def wanted(socket: SocketRecord) -> bool:
        known = inside.get(socket.cgroup_id)
        if known is None:
            found = cgroup_of(socket)
            known = inside[socket.cgroup_id] = found is not None and f"{found.rstrip('/')}/".startswith(below)
        return known

    return wanted


def _by_address(text: str) -> Wanted:
    try:
        ip, port = parse_end(text)
        address = str(canonical(str(ip)))
    except ValueError as e:
        raise _bad("address", str(e)) from e

    locals_of_listeners = {address, WILDCARDS[":" in address], "::"} if port else {address}

    def wanted(socket: SocketRecord) -> bool:
        if socket.is_listener:
            return socket.local in locals_of_listeners and port in (0, socket.local_port)
        ends = ((socket.local, socket.local_port), (socket.remote, socket.remote_port))
        return any(ip == address and port in (0, its_port) for ip, its_port in ends)

    return wanted


def _bad(name: str, message: str) -> BadRequest:
    return BadRequest([{"name": name, "message": message}])
