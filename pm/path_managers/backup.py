# SPDX-License-Identifier: Apache-2.0
"""``backup``: one hot standby over another interface, promoted when the primary path fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pm.model import LocalAddress, Pair, Want, Wanted
from pm.path_managers.base import SessionView
from pm.path_managers.remotes import candidates, reachable


class Backup:
    name: ClassVar[str] = "backup"
    summary: ClassVar[str] = (
        "One standby subflow over another interface, with the backup flag; it carries the traffic "
        "while the primary path is down, or the peer made it a backup."
    )

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Parameters:
        pass

    @staticmethod
    def wanted(session: SessionView, addresses: Sequence[LocalAddress], parameters: Parameters) -> Wanted:
        primary = session.initial_pair
        wanted: Wanted = {primary: Want()}
        standby = _standby(session, addresses)
        if standby:
            # If the primary does not work, or the peer made it a backup (MP_PRIO), the standby must carry
            # traffic: it loses its backup flag.
            works = any(s.pair == primary and s.working and not s.peer_backup for s in session.subflows)
            wanted[standby] = Want(backup=works and not session.local_lost)
        return wanted


def _standby(session: SessionView, addresses: Sequence[LocalAddress]) -> Pair | None:
    """The first pair over another interface than the primary's, which has not failed if there is one.

    Interfaces marked backup come first. The primary's own interface is the last resort, once the
    primary is lost: its address, or the peer's, may have changed.
    """
    usable = sorted(addresses, key=lambda a: (a.ifindex == session.local_ifindex, not a.backup))
    if not _primary_lost(session):
        usable = [a for a in usable if a.ifindex != session.local_ifindex and a.ip != session.local]
    pairs = candidates(session, addresses)
    ordered = [p for a in usable for p in pairs if p.local == a.ip and p != session.initial_pair]
    working = {s.pair for s in session.subflows if s.working}
    return next((p for p in ordered if p in working or p not in session.failing), next(iter(ordered), None))


def _primary_lost(session: SessionView) -> bool:
    """Whether it is gone for good: it cannot be opened again between its own addresses."""
    if session.local_lost:
        return True
    there = any(s.pair == session.initial_pair for s in session.subflows)
    return not there and (session.remote, session.remote_port) not in reachable(session)
