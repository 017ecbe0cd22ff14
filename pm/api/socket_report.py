# SPDX-License-Identifier: GPL-2.0-only
"""Looks at the TCP sockets of this network namespace, for those who ask why there is no MPTCP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pm.api.control import Connection, SocketReport
from pm.errors import NotFound
from pm.kernel import SocketRecord
from pm.linux.host.mptcp_state import read_mptcp_state
from pm.linux.host.netns import netns_inode
from pm.linux.netlink.sock_diag import SockDiag
from pm.linux.netlink.tcp_sockets import dump_sockets
from pm.no_session import Chosen, explain
from pm.sessions.why import Why

AROUND_MAX = 1024  # listeners and other ends: with SO_REUSEPORT anybody can make many of one port


async def look_at_sockets(
    wanted: Callable[[SocketRecord], bool],
    diagnosis: SockDiag,
    cgroup_of: Callable[[SocketRecord], str | None],
    why: Callable[[int], Awaitable[Why]],
) -> SocketReport:
    """A walk over all sockets, in slices, then a closer look at the chosen ones. Raises KernelRefused."""
    chosen = Chosen(wanted)
    for part in dump_sockets():
        chosen.add(part)
        await asyncio.sleep(0)
    around: list[SocketRecord] = []
    if ports := chosen.neighbours():
        for part in dump_sockets(ports):
            around += part[: AROUND_MAX - len(around)]
            await asyncio.sleep(0)
    state = await asyncio.to_thread(read_mptcp_state)
    sockets = chosen.sockets
    tokens = list({socket.token for socket in sockets} - {0})
    sessions = dict(zip(tokens, diagnosis.session_infos(tokens), strict=True))
    connections = []
    for socket in sockets:
        session = sessions.get(socket.token)
        if socket.token and session is None:
            continue  # it has ended meanwhile
        findings, known = explain(socket, session, around, state), None
        if session and not findings:
            try:
                known = await why(socket.token)
            except NotFound:
                continue
        connections.append(Connection(socket, cgroup_of(socket), findings, known))
    return SocketReport(netns_inode(), chosen.looked_at, chosen.left_out, connections)
