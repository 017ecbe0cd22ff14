# SPDX-License-Identifier: Apache-2.0
"""What the plan makes of the interfaces by which packets leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pm.model import LocalAddress, Origin, Pair, SubflowState, Way
from pm.path_managers.registry import registry
from pm.sessions.actions import Close, Open
from pm.sessions.known_ways import Routes
from pm.sessions.plan import plan
from pm.sessions.session import Session
from tests.unit.builders import REMOTE, REMOTE_PORT, address, locals_of, policy, session, subflow

A, B, C = address("10.0.1.1", 2), address("10.0.2.1", 3), address("10.0.3.1", 4)
BLUE = 20
NO_WAY = Way(why="no route")


def actions(s: Session, ways: Mapping[str, Way], *addresses: LocalAddress) -> list[Any]:
    routes = Routes(lambda local, *destination: ways.get(local.ip, Way()))
    routes.set_addresses(addresses)
    assert s.policy
    made = plan(s, registry()[s.policy.path_manager.name], replace(locals_of(*addresses), routes=routes), 0.0)
    return made.actions


def opened(s: Session, ways: Mapping[str, Way], *addresses: LocalAddress) -> dict[str, int]:
    """Local address -> interface to bind to."""
    return {a.pair.local: a.ifindex for a in actions(s, ways, *addresses) if isinstance(a, Open)}


def joined(local: LocalAddress, *, opening: bool = False, **fields: Any) -> Session:
    """A session with its initial subflow and one from another address."""
    state = SubflowState.OPENING if opening else SubflowState.ESTABLISHED
    own = subflow(A.ip, origin=Origin.INITIAL, local_port=40000)
    return session(policy=policy(), subflows=[own, subflow(local.ip, state=state, **fields)])


def test_a_pair_without_a_way_holds_no_place() -> None:
    """The next address gets it; the session tells why."""
    s = session(policy=policy("fullmesh", {"max_subflows": 2}))
    assert opened(s, {B.ip: NO_WAY, C.ip: Way(C.ifindex)}, A, B, C) == {C.ip: C.ifindex}
    assert s.unroutable == {Pair(B.ip, REMOTE, REMOTE_PORT): "no route"}
    standby = session(policy=policy("backup"))
    assert opened(standby, {B.ip: NO_WAY}, A, B, C) == {C.ip: 0}


def test_what_works_stays_without_a_way() -> None:
    """Routes come and go. A subflow that is not established yet goes: its SYN leads nowhere."""
    assert actions(joined(B), {B.ip: NO_WAY}, A, B) == []
    (close,) = actions(joined(B, opening=True), {B.ip: NO_WAY}, A, B)
    assert isinstance(close, Close)


@pytest.mark.parametrize("bound_to", [0, 9])
def test_what_opens_over_the_wrong_interface_is_opened_again(bound_to: int) -> None:
    """As a BPF program does that does not know the route. Closed once its port is known."""
    s = joined(B, opening=True, ifindex=bound_to)
    new, close = actions(s, {B.ip: Way(B.ifindex)}, A, B)
    assert (new.ifindex, close.subflow) == (B.ifindex, s.subflows[1])
    s.subflows[1].local_port = 0
    assert [type(action) for action in actions(s, {B.ip: Way(B.ifindex)}, A, B)] == [Open]


def test_a_bound_subflow_whose_address_moved_is_opened_again_before_it_is_closed() -> None:
    """It belongs to an ifindex: nothing comes in where its address is now."""
    s = joined(B, ifindex=9)
    assert opened(s, {B.ip: Way(B.ifindex)}, A, B) == {B.ip: B.ifindex}
    s.subflows.append(subflow(B.ip, local_port=42000, ifindex=B.ifindex))
    (close,) = actions(s, {B.ip: Way(B.ifindex)}, A, B)
    assert close.subflow is s.subflows[1]


def test_a_subflow_that_works_unbound_stays_so() -> None:
    """The route changed after it was established, or the peer's router forgives."""
    assert actions(joined(B), {B.ip: Way(B.ifindex)}, A, B) == []
    assert actions(joined(B, ifindex=B.ifindex), {}, A, B) == []


def test_a_vrf_is_apart() -> None:
    """Sessions outside have no address in it, those that are bound to it no other."""
    in_blue = [replace(local, vrf=BLUE) for local in (B, C)]
    assert opened(session(policy=policy()), {}, A, *in_blue) == {}
    bound = session("10.0.2.1", policy=policy(), device=BLUE)
    assert opened(bound, {C.ip: Way(C.ifindex)}, A, *in_blue) == {C.ip: C.ifindex}


def test_a_session_that_is_bound_to_an_interface_stays_on_it() -> None:
    """Also ndiffports, whose initial address the rules may exclude."""
    assert opened(session(policy=policy(), device=A.ifindex), {}, A, B) == {}
    excluded = replace(A, usable=False)
    ports = session(policy=policy("ndiffports"), device=A.ifindex)
    assert opened(ports, {}, excluded) == {A.ip: A.ifindex}
