# SPDX-License-Identifier: GPL-2.0-only
"""Which remote addresses a session can open subflows to."""

from __future__ import annotations

from pm.model import Role
from pm.path_managers.base import SessionView


def reachable(session: SessionView) -> dict[tuple[str, int], None]:
    """(address, port) the peer can be reached at, the initial one first, each once.

    The client knows the server's port, also for announced addresses without one (RFC 8684,
    section 3.4.1). A server reaches a client only where it announced a port: the initial subflow's
    remote port is ephemeral and nobody listens there.
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
