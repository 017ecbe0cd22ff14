# SPDX-License-Identifier: Apache-2.0
"""The remote addresses to which a session can open subflows, and from which local ones."""

from __future__ import annotations

from collections.abc import Sequence

from pm.model import LocalAddress, Pair, Role, is_host, is_link_local
from pm.path_managers.base import SessionView


def reachable(session: SessionView) -> dict[tuple[str, int], None]:
    """Every (address, port) at which the peer can be reached, once, with the initial one first.

    A client uses the server's port for announced addresses without one (RFC 8684, section 3.4.1), and
    not the initial address where the server refuses joins to it or withdrew it. A server reaches a
    client only at addresses that were announced with a port: the client's other ports are ephemeral
    and nothing listens there. An announced address that is no host's elsewhere (loopback,
    multicast, unspecified) is left out.
    """
    found: dict[tuple[str, int], None] = {}
    if session.role is Role.CLIENT:
        if not session.deny_join_id0 and not session.initial_removed:
            found[session.remote, session.remote_port] = None
        for remote in session.remotes:
            if is_host(remote.ip):
                found[remote.ip, remote.port or session.remote_port] = None
    else:
        for remote in session.remotes:
            if remote.port and is_host(remote.ip):
                found[remote.ip, remote.port] = None
    return found


def candidates(session: SessionView, addresses: Sequence[LocalAddress]) -> dict[Pair, LocalAddress]:
    """Every pair on which this end can open subflows, with its local address; by remote address."""
    found = {
        Pair(address.ip, remote, port): address
        for remote, port in reachable(session)
        for address in addresses
        if can_reach(session, address, remote)
    }
    for pair in session.unroutable:
        found.pop(pair, None)
    return found


def can_reach(session: SessionView, address: LocalAddress, remote: str) -> bool:
    """Whether a local address can be the source for a remote one, by their kinds.

    Link-local addresses go together, and on the interface of the initial subflow: the peer's other
    interfaces are not on this link.
    """
    if (":" in address.ip) != (":" in remote):
        return False
    local_only, remote_only = is_link_local(address.ip), is_link_local(remote)
    if not local_only and not remote_only:
        return True
    return local_only and remote_only and address.ifindex == session.local_ifindex
