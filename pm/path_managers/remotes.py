# SPDX-License-Identifier: GPL-2.0-only
"""The remote addresses to which a session can open subflows."""

from __future__ import annotations

from pm.model import Role
from pm.path_managers.base import SessionView


def reachable(session: SessionView) -> dict[tuple[str, int], None]:
    """Every (address, port) at which the peer can be reached, once, with the initial one first.

    A client uses the server's port for announced addresses without one (RFC 8684, section 3.4.1). A
    server reaches a client only at addresses that were announced with a port: the client's other
    ports are ephemeral and nothing listens there.
    """
    found: dict[tuple[str, int], None] = {}
    if session.role is Role.CLIENT:
        if not session.deny_join_id0:
            found[session.remote, session.remote_port] = None
        for remote in session.remotes:
            found[remote.ip, remote.port or session.remote_port] = None
    else:
        for remote in session.remotes:
            if remote.port:
                found[remote.ip, remote.port] = None
    return found
