# SPDX-License-Identifier: Apache-2.0
"""Looks at the TCP sockets of this network namespace, for those who ask why there is no MPTCP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from pm.api.control import Connection, SocketReport
from pm.errors import NotFound
from pm.findings import Finding
from pm.kernel import SessionInfo, SocketRecord
from pm.linux.host.mptcp_state import read_mptcp_state
from pm.linux.host.netns import netns_inode
from pm.linux.netlink.sock_diag import SockDiag
from pm.linux.netlink.tcp_sockets import dump_sockets
from pm.no_session import WILDCARDS, Chosen, explain
from pm.sessions.why import Why


class _Look(NamedTuple):
    """Sockets with their sessions, if they have one, and why they have none or lost it."""

    chosen: Chosen
    found: Sequence[tuple[SocketRecord, SessionInfo | None, Sequence[Finding]]]


async def look_at_sockets(
    wanted: Callable[[SocketRecord], bool],
    diagnosis: SockDiag,
    cgroup_of: Callable[[SocketRecord], str | None],
    why: Callable[[int], Awaitable[Why]],
) -> SocketReport:
    """What is said of each; ``why`` is asked about what is an MPTCP session. Raises KernelRefused."""
    chosen, found = await _look(wanted, diagnosis)
    connections = []
    for socket, session, findings in found:
        try:
            known = await why(socket.token) if session and not findings else None
        except NotFound:  # it has ended meanwhile
            continue
        connections.append(Connection(socket, cgroup_of(socket), findings, known))
    netns = await asyncio.to_thread(netns_inode)
    return SocketReport(netns, chosen.looked_at, chosen.left_out, connections)


async def why_tcp(token: int, diagnosis: SockDiag) -> Sequence[Finding]:
    """Why the session with this token is no MPTCP; nothing where it has ended. Raises KernelRefused."""
    _, found = await _look(lambda socket: socket.token == token, diagnosis)
    return [finding for _, _, findings in found for finding in findings]


def what_matters(chosen: Sequence[SocketRecord]) -> Callable[[SocketRecord], object]:
    """Gives a key to the other ends of these, and to the listeners that can have accepted either end.

    Listeners that are alike have one key: anybody can make many on a port, with SO_REUSEPORT or one for each
    address of the loopback interface.
    """
    others = {(s.remote, s.remote_port, s.local, s.local_port) for s in chosen}
    ends = {end for other in others for end in (other[:2], other[2:])}
    listening = {(ip, port) for end, port in ends for ip in (end, WILDCARDS[":" in end], "::")}

    def key(socket: SocketRecord) -> object:
        if not socket.is_listener:
            return socket[:4] if socket[:4] in others else None
        local = (socket.local, socket.local_port)
        return (*local, socket.ifindex, socket.mptcp) if local in listening else None

    return key


async def _look(wanted: Callable[[SocketRecord], bool], diagnosis: SockDiag) -> _Look:
    """A walk over all sockets, in slices, then a closer look at the chosen ones."""
    chosen = Chosen(wanted)
    for part in dump_sockets():
        chosen.add(part)
        await asyncio.sleep(0)
    around: dict[object, SocketRecord] = {}
    if ports := chosen.neighbours():
        matters = what_matters(chosen.sockets)
        for part in dump_sockets(ports):
            around |= {key: socket for socket in part if (key := matters(socket))}
            await asyncio.sleep(0)
    state = await asyncio.to_thread(read_mptcp_state)
    tokens = list({socket.token for socket in chosen.sockets} - {0})
    sessions = dict(zip(tokens, diagnosis.session_infos(tokens), strict=True))
    found = [
        (socket, session, explain(socket, session, list(around.values()), state))
        for socket in chosen.sockets
        for session in [sessions.get(socket.token)]
        if session or not socket.token  # or else it has ended meanwhile
    ]
    return _Look(chosen, found)
