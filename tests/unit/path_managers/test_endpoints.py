# SPDX-License-Identifier: Apache-2.0
"""What ``endpoints`` wants; tests/net compares it with the kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pm.model import Announcement, Endpoint, EndpointTable, LocalAddress, Origin, Pair, RemoteAddress, Want
from pm.path_managers.endpoints import Endpoints, NamespaceEndpoints
from pm.sessions.actions import Close, SetBackup, Withdraw
from pm.sessions.endpoint_book import after_change, differences, endpoint_addresses
from pm.sessions.local_addresses import LocalAddresses
from tests.unit.builders import REMOTE_PORT, address, locals_of, session, subflow

A, B, C = "10.0.1.1", "10.0.2.1", "10.0.3.1"
OTHER = "10.0.9.2"
ADDRESSES = [address(A), address(B, 3), address(C, 4)]


def here(*endpoints: Endpoint, subflows: int = 8, accepted: int = 8) -> NamespaceEndpoints:
    return NamespaceEndpoints(EndpointTable(endpoints, subflows, accepted), lambda destination: C)


def endpoint(ip: str, address_id: int = 1, **flags: Any) -> Endpoint:
    return Endpoint(ip, address_id, **{"subflow": True, **flags})


def test_what_is_there_keeps_its_place_when_the_limit_falls() -> None:
    """A lower limit closes nothing; the peer's subflows count, too."""
    ours, joined = subflow(B), subflow(A, local_port=5000, origin=Origin.PEER)
    s = session()
    s.subflows += [ours, joined]
    table = here(endpoint(B), endpoint(C, 2), subflows=1)
    assert set(Endpoints.wanted(s, ADDRESSES, table)) == {s.initial_pair, ours.pair}
    assert len(Endpoints.wanted(s, ADDRESSES, here(endpoint(B), endpoint(C, 2), subflows=3))) == 3


def test_an_announced_address_keeps_its_source() -> None:
    """The route's source is asked for once: a subflow that is there stays when the route changes."""
    s = session(remotes=(RemoteAddress(OTHER, 0, 2),))
    assert Endpoints.wanted(s, ADDRESSES, here())[Pair(C, OTHER, REMOTE_PORT)] == Want()
    s.subflows.append(subflow(B, OTHER))
    assert set(Endpoints.wanted(s, ADDRESSES, here())) == {s.initial_pair, Pair(B, OTHER, REMOTE_PORT)}


def test_a_laminar_endpoint_answers_one_address() -> None:
    """The first whose address has no subflow of the session; the routes are not asked then."""
    s = session(remotes=(RemoteAddress(OTHER, 0, 2), RemoteAddress("10.0.9.3", 0, 3)))
    table = here(endpoint(B, subflow=False, laminar=True))
    assert set(Endpoints.wanted(s, ADDRESSES, table)) >= {s.initial_pair, Pair(B, OTHER, REMOTE_PORT)}


def test_a_laminar_endpoint_is_used_once() -> None:
    """With the flag `subflow` too: for whichever address the session knew first, and for both never."""
    table = here(endpoint(B, laminar=True))
    s = session(remotes=(RemoteAddress(OTHER, 0, 2),))
    announced = Pair(B, OTHER, REMOTE_PORT)
    assert set(Endpoints.wanted(s, ADDRESSES, table)) == {s.initial_pair, announced}
    s.subflows.append(subflow(B, OTHER))
    assert set(Endpoints.wanted(s, ADDRESSES, table)) == {s.initial_pair, announced}
    s.subflows[-1] = subflow(B)
    assert set(Endpoints.wanted(s, ADDRESSES, table)) == {s.initial_pair, s.subflows[-1].pair}


def test_what_is_announced() -> None:
    """Not the session's own address, not IPv6 on an IPv4 socket, each address once."""
    signal = [
        Endpoint(ip, i, port=i, signal=True, backup=i == 3) for i, ip in enumerate((A, B, B, "fd00::1"), 1)
    ]
    assert here(*signal).announcements(session(), set()) == [Announcement(B, 2, False)]
    assert here(*signal).announcements(session(), {B}) == []


def test_addresses_and_ids_are_those_of_the_table() -> None:
    """An address without an endpoint has an id that no endpoint has."""
    found = endpoint_addresses(locals_with(*ADDRESSES), [endpoint(B, 1, backup=True), endpoint(C, 9)])
    assert {a.ip: a.backup for a in found.usable} == {B: True, C: False, A: False}
    assert (found.ids[B], found.ids[C]) == (1, 9)
    assert found.ids[A] not in (1, 9)


def locals_with(*addresses: LocalAddress) -> LocalAddresses:
    return replace(locals_of(*addresses), there=addresses)


def test_an_endpoint_that_goes_takes_its_subflows() -> None:
    """Whoever opened them, but not the last; flags are set on the peer's as well."""
    s = session()
    ours, joined = subflow(B), subflow(C, local_port=5000, origin=Origin.PEER)
    s.subflows += [ours, joined]
    before = EndpointTable((endpoint(A), endpoint(B, 2), endpoint(C, 3)))
    gone, flags = differences(before, EndpointTable((endpoint(A), endpoint(C, 3, backup=True))))
    ours.local_id = 2
    assert after_change(s, gone, flags, {}) == [
        SetBackup(joined, True, "endpoint"),
        Withdraw(B, 2, "endpoint deleted"),
        Close(ours, "endpoint deleted"),
    ]
    alone = session()
    gone, flags = differences(before, EndpointTable())
    assert after_change(alone, gone, flags, {}) == []
