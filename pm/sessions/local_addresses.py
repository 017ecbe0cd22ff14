# SPDX-License-Identifier: Apache-2.0
"""The local addresses of the namespace with their address ids, as planning needs them."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pm.model import LocalAddress, Pair, interfaces_of, is_link_local
from pm.sessions.address_ids import AddressIds
from pm.sessions.known_ways import Destination, Routes, anywhere
from pm.sessions.session import Session

SEEN_MAX = 4096  # addresses seen up, those that are there now not counted


@dataclass(frozen=True, slots=True)
class LocalAddresses:
    """The local addresses as the planner needs them; computed once per change, for all sessions.

    ``usable`` may carry new subflows; ``up`` can carry packets, also where the rules exclude it;
    ``ids`` are the namespace-wide address ids, 1 to 255. ``lost`` are those that this host had and
    cannot use any more; ``interfaces`` has the index of every address's interface. ``there`` are all
    addresses, usable or not; ``bound`` has the interface of those whose subflows are bound to one.
    ``routes`` tells by which way packets from them leave.
    """

    usable: tuple[LocalAddress, ...]
    up: frozenset[str]
    ids: Mapping[str, int]
    lost: Container[str] = field(default_factory=frozenset)
    interfaces: Mapping[str, int] = field(default_factory=dict)
    there: tuple[LocalAddress, ...] = ()
    bound: Mapping[str, int] = field(default_factory=dict)
    routes: Routes = field(default_factory=lambda: Routes(anywhere))

    def id_of(self, session: Session, ip: str) -> int | None:
        """The address id of ``ip`` within a session; 0 is the initial subflow's (RFC 8684, 3.4.2)."""
        if ip == session.local:
            return 0
        if session.local_ids and ip in session.local_ids:
            return session.local_ids[ip]
        return self.ids.get(ip)


class Lost(Container[str]):
    """Which addresses are lost: seen up and now down or gone, or routed as local no more.

    An address that was never seen up on an interface is in use by other means (AnyIP, TPROXY, a
    virtual server's): as long as the kernel routes it as local, it is left alone.
    """

    def __init__(
        self,
        seen_up: Container[str],
        up: Container[str],
        there: Container[str],
        is_local: Callable[[str], bool],
    ) -> None:
        """``there``: on an interface, up or not. ``is_local`` asks the kernel."""
        self._seen_up = seen_up
        self._up = up
        self._there = there
        self._is_local = is_local
        self._asked: dict[str, bool] = {}

    def __contains__(self, ip: object) -> bool:
        if not isinstance(ip, str) or ip in self._up:
            return False
        if ip in self._seen_up:
            return True
        if ip in self._there:
            return False
        if ip not in self._asked:
            self._asked[ip] = not self._is_local(ip)
        return self._asked[ip]


@dataclass(frozen=True, slots=True)
class Changes:
    """What an update did: addresses that could carry packets and cannot now, and the reverse."""

    lost: frozenset[str]
    returned: frozenset[str]


class AddressBook:
    """The addresses of now. Ids stay: an address that comes back has the id that it had.

    ``seen_up`` are addresses that this or an earlier run of the service saw up. ``on_change`` is called
    when they, or the ids, may have changed.
    """

    def __init__(
        self,
        ids: AddressIds,
        *,
        is_local: Callable[[str], bool],
        seen_up: Sequence[str] = (),
        on_change: Callable[[], None],
        routes: Routes,
    ) -> None:
        self._ids = ids
        self._is_local = is_local
        self._on_change = on_change
        self.seen_up = dict.fromkeys(seen_up)
        self.current = LocalAddresses((), frozenset(), ids.by_ip, routes=routes)

    def update(self, addresses: Sequence[LocalAddress]) -> Changes:
        """Replace all of them."""
        usable = tuple(a for a in addresses if a.usable)
        interfaces = interfaces_of(addresses)
        for address in usable:
            self._ids.allocate(address.ip, interfaces)
        before, up = self.current.up, frozenset(a.ip for a in addresses if a.up)
        self._note_seen(up)
        lost = Lost(self.seen_up, up, interfaces, self._is_local)
        self.current = replace(
            self.current, usable=usable, up=up, lost=lost, interfaces=interfaces, there=tuple(addresses)
        )
        self.current.routes.set_addresses(usable)
        self._on_change()
        return Changes(before - up, up - before)

    def adopt(self, ids: Mapping[str, int]) -> None:
        """Address ids that programs in the kernel gave, or have: they are those of the namespace."""
        self._ids.adopt(ids)

    def ask_again(self) -> None:
        """Routes have changed: what the kernel said about addresses may not hold any more."""
        lost = Lost(self.seen_up, self.current.up, self.current.interfaces, self._is_local)
        self.current = replace(self.current, lost=lost)
        self.current.routes.ask_again()

    def _note_seen(self, up: frozenset[str]) -> None:
        for ip in up:  # the newest last
            self.seen_up.pop(ip, None)
        self.seen_up |= dict.fromkeys(sorted(up))
        for ip in list(self.seen_up)[: max(0, len(self.seen_up) - len(up) - SEEN_MAX)]:
            del self.seen_up[ip]

    def local_id(self, session: Session, ip: str) -> int:
        """The address id of a local address within a session, new if need be; 0 where all are taken."""
        local_id = self.current.id_of(session, ip)
        if local_id is None:  # an address that the rules exclude: the kernel judges it
            local_id = self._ids.allocate(ip, frozenset(a.ip for a in self.current.usable)) or 0
        return local_id

    def device_for(self, session: Session, pair: Pair) -> int:
        """The interface to bind a subflow of a session to, 0 for none; the kernel judges where none helps."""
        if is_link_local(pair.local):
            return self.current.interfaces.get(pair.local, 0)
        device = session.device or 0
        destination = Destination(pair.remote, pair.remote_port, session.mark, device)
        way = self.current.routes.ways_to(destination).get(pair.local)
        return way.ifindex if way else device

    def is_backup(self, ip: str) -> bool:
        """Whether subflows from this address carry the backup flag unless told otherwise."""
        return any(a.backup for a in self.current.usable if a.ip == ip)
