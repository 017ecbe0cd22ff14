# SPDX-License-Identifier: Apache-2.0
"""``endpoints``: what ``ip mptcp endpoint`` and ``ip mptcp limits`` say (net/mptcp/pm_kernel.c).

The kernel reacts to events and keeps marks of what it has used; here the same subflows follow from the
table and the session as they are now.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pm.model import (
    Announcement,
    Endpoint,
    EndpointTable,
    LocalAddress,
    Origin,
    Pair,
    Want,
    Wanted,
    family_of,
)
from pm.path_managers.base import SessionView
from pm.path_managers.remotes import reachable


@dataclass(frozen=True, slots=True)
class NamespaceEndpoints:
    """What ``Endpoints.wanted`` gets in place of parameters: the service reads it from the kernel.

    ``source_of`` tells the source address that the routes give for a destination, "" for none.
    """

    table: EndpointTable
    source_of: Callable[[str], str]

    @property
    def subflows(self) -> int:
        """Of a session, the initial one included."""
        return self.table.subflows + 1

    def backup(self, ip: str) -> bool:
        """Whether subflows from a local address carry the backup flag."""
        return any(e.backup for e in self.table.endpoints if e.ip == ip)

    def announcements(self, session: SessionView, lost: Container[str]) -> list[Announcement]:
        """What the peer is told, in the kernel's order; addresses that are not on this host as well.

        Not the session's own address: a path manager in user space cannot announce the id 0.
        """
        found: dict[str, Announcement] = {}
        for e in self.table.endpoints:
            other = session.socket_family == 4 and family_of(e.ip) == 6
            if e.signal and not other and e.ip != session.local and e.ip not in lost:
                found.setdefault(e.ip, Announcement(e.ip, e.port, e.backup))
        return list(found.values())


class Endpoints:
    name: ClassVar[str] = "endpoints"
    summary: ClassVar[str] = (
        "What `ip mptcp endpoint` and `ip mptcp limits` say, as the kernel's own path manager does it. "
        "On the netlink datapath sessions without a policy have it, too."
    )

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Parameters:
        pass

    @staticmethod
    def wanted(session: SessionView, addresses: Sequence[LocalAddress], parameters: Any) -> Wanted:
        """``parameters`` are ``NamespaceEndpoints``; ``addresses`` all that can carry subflows."""
        if not isinstance(parameters, NamespaceEndpoints):
            return {session.initial_pair: Want()}  # the kernel does it itself
        initial = session.initial_pair
        own = any(s.origin is Origin.INITIAL for s in session.subflows)
        openable = (initial.remote, initial.remote_port) in reachable(session) and not session.local_lost
        first = [initial] if own or openable else []
        pairs = dict.fromkeys([*first, *_candidates(session, addresses, parameters)])
        ours = {s.pair for s in session.subflows if s.origin in (Origin.POLICY, Origin.OPERATOR)}
        # The limit counts what is there, also the peer's subflows; what we close gives its place back.
        taken = sum(
            s.origin in (Origin.PEER, Origin.OPERATOR) or (s.origin is Origin.POLICY and s.pair in pairs)
            for s in session.subflows
        )
        room = max(0, parameters.table.subflows - taken)
        wanted: Wanted = {}
        # A pair that keeps failing holds no place that another could use.
        for pair in sorted(pairs, key=lambda p: p in session.failing):
            there = pair in ours or (pair == initial and own)
            if not there:
                if not room:
                    continue
                room -= 1
            wanted[pair] = Want(backup=parameters.backup(pair.local))
        return wanted


def _candidates(
    session: SessionView, addresses: Sequence[LocalAddress], parameters: NamespaceEndpoints
) -> Iterator[Pair]:
    """The pairs that the table asks for, beside the initial one, in the order in which they are opened."""
    usable = {a.ip for a in addresses}
    there = [e for e in parameters.table.endpoints if e.ip in usable and not e.port]
    accepted = _accepted(session, parameters.table)
    announced = [p for r, port in accepted for p in _to_announced(session, there, r, port, parameters)]
    # A laminar endpoint is used once.
    used = {e.ip for e in there if e.laminar} & {pair.local for pair in announced}
    # On the initial address the kernel opens nothing at first: that endpoint is used already.
    for e in there:
        if e.subflow and e.ip != session.local:
            if not session.deny_join_id0 and e.ip not in used:
                yield from _with_family(e, session.remote, session.remote_port)
            if e.fullmesh:
                for remote, port in accepted:
                    yield from _with_family(e, remote, port)
    yield from announced


def _to_announced(
    session: SessionView, there: Sequence[Endpoint], remote: str, port: int, parameters: NamespaceEndpoints
) -> Iterator[Pair]:
    """From every fullmesh endpoint; without one from a laminar one, else from the route's source."""
    mesh = [pair for e in there if e.fullmesh for pair in _with_family(e, remote, port)]
    known = [s.pair for s in session.subflows if _ours_to(s.pair, s.origin, remote, port)]
    if mesh:
        yield from mesh
    elif laminar := [e for e in there if e.laminar]:
        used = {s.local for s in session.subflows}
        free = [pair for e in laminar if e.ip not in used for pair in _with_family(e, remote, port)]
        yield from known or free[:1]
    elif session.deny_join_id0 and not parameters.table.add_addr_accepted:
        for e in there:
            if e.subflow and e.ip != session.local:
                yield from _with_family(e, remote, port)
    elif known:
        yield from known  # another source, because a route or an endpoint changed, is for others
    elif source := parameters.source_of(remote):
        yield Pair(source, remote, port)


def _accepted(session: SessionView, table: EndpointTable) -> list[tuple[str, int]]:
    """The announced addresses to which subflows may be opened, those that have some first.

    A peer that refuses joins to its initial address (the C flag) has one accepted also where the limit
    is 0, which is the default: otherwise it would have no second subflow at all.
    """
    initial = (session.remote, session.remote_port)
    ours = {(s.remote, s.remote_port) for s in session.subflows if s.origin is Origin.POLICY}
    joined = {s.remote for s in session.subflows if s.origin is Origin.PEER}
    announced = [end for end in reachable(session) if end != initial]
    # Where the peer has joined from that address itself the kernel opens nothing.
    possible = [end for end in announced if end in ours or end[0] not in joined]
    most = table.add_addr_accepted or (1 if session.deny_join_id0 else 0)
    return sorted(possible, key=lambda end: end not in ours)[:most]


def _with_family(endpoint: Endpoint, remote: str, port: int) -> Iterator[Pair]:
    if family_of(endpoint.ip) == family_of(remote):
        yield Pair(endpoint.ip, remote, port)


def _ours_to(pair: Pair, origin: Origin, remote: str, port: int) -> bool:
    return origin is Origin.POLICY and (pair.remote, pair.remote_port) == (remote, port)
