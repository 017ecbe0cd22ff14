# SPDX-License-Identifier: GPL-2.0-only
"""The local addresses of the namespace with their address ids, as planning needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pm.model import LocalAddress
from pm.sessions.address_ids import AddressIds
from pm.sessions.session import Session


@dataclass(frozen=True, slots=True)
class LocalAddresses:
    """The local addresses as the planner needs them; computed once per change, for all sessions.

    ``usable`` may carry new subflows; ``up`` can carry packets, also where the rules exclude it;
    ``ids`` are the namespace-wide address ids, 1 to 255.
    """

    usable: tuple[LocalAddress, ...]
    up: frozenset[str]
    ids: Mapping[str, int]

    def id_of(self, session: Session, ip: str) -> int | None:
        """The address id of ``ip`` within a session; 0 is the initial subflow's (RFC 8684, 3.4.2)."""
        if ip == session.local:
            return 0
        if session.local_ids and ip in session.local_ids:
            return session.local_ids[ip]
        return self.ids.get(ip)


class AddressBook:
    """The addresses of now. Ids stay: an address that comes back has the id that it had."""

    def __init__(self, ids: AddressIds) -> None:
        self._ids = ids
        self.current = LocalAddresses((), frozenset(), ids.by_ip)

    def update(self, addresses: Sequence[LocalAddress]) -> frozenset[str]:
        """Replace all of them; those that could carry packets before and cannot now."""
        usable = tuple(a for a in addresses if a.usable)
        known = frozenset(a.ip for a in addresses)
        for address in usable:
            self._ids.allocate(address.ip, known)
        up = frozenset(a.ip for a in addresses if a.up)
        lost = self.current.up - up
        self.current = LocalAddresses(usable, up, self._ids.by_ip)
        return lost

    def local_id(self, session: Session, ip: str) -> int:
        """The address id of a local address within a session, new if need be; 0 where all are taken."""
        local_id = self.current.id_of(session, ip)
        if local_id is None:  # an address that the rules exclude: the kernel judges it
            local_id = self._ids.allocate(ip, frozenset(a.ip for a in self.current.usable)) or 0
        return local_id
