# SPDX-License-Identifier: GPL-2.0-only
"""``backup``: one hot standby over another interface, promoted when the primary path fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pm.model import LocalAddress, Pair, SubflowState, Want, Wanted, family_of
from pm.path_managers.base import SessionView
from pm.path_managers.remotes import reachable


class Backup:
    name: ClassVar[str] = "backup"
    summary: ClassVar[str] = (
        "One standby subflow over another interface, with the backup flag; it carries the traffic "
        "while the primary path is down."
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
            # If the primary does not work, the standby must carry traffic: it loses its backup flag.
            up = any(s.pair == primary and s.state is SubflowState.ESTABLISHED for s in session.subflows)
            usable = any(a.ip == primary.local for a in addresses)
            wanted[standby] = Want(backup=up and usable)
        return wanted


def _standby(session: SessionView, addresses: Sequence[LocalAddress]) -> Pair | None:
    """The first pair over another interface than the primary's; interfaces marked backup come first."""
    primary_if = {a.ifindex for a in addresses if a.ip == session.local}
    remotes = reachable(session)
    for address in sorted(addresses, key=lambda a: not a.backup):
        if address.ip == session.local or address.ifindex in primary_if:
            continue
        for remote, port in remotes:
            if family_of(remote) == address.family:
                return Pair(address.ip, remote, port)
    return None
