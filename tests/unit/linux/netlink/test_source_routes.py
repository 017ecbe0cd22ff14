# SPDX-License-Identifier: Apache-2.0
"""Which rules and routes source routing wants, and in which order it gets there."""

from __future__ import annotations

from dataclasses import replace

from pm.linux.netlink.source_routes import (
    DEFAULT,
    MAIN_PRIORITY,
    MAIN_TABLE,
    SOURCE_PRIORITY,
    TABLES,
    Change,
    Route,
    Routing,
    Rule,
    changes,
    wanted,
)
from tests.unit.builders import address

A, B, V6 = address("10.0.1.1", 2), address("10.0.2.1", 3), address("fd00::1", 2)
WG0 = 9
LINK_A = Route(4, MAIN_TABLE, "10.0.1.0/24", 2)
LINK_B = Route(4, MAIN_TABLE, "10.0.2.0/24", 3)
BY_A = Route(4, MAIN_TABLE, DEFAULT, 2, "10.0.1.254", metric=100)
BY_B = Route(4, MAIN_TABLE, DEFAULT, 3, "10.0.2.254", metric=600)


def test_each_interface_has_its_links_and_its_best_default_route() -> None:
    """Also the one with the worst metric of all; the metrics themselves do not matter there."""
    worse = BY_B._replace(gateway="10.0.2.253", metric=700)
    made = wanted([A, B], {4: [LINK_A, LINK_B, BY_A, worse, BY_B], 6: []}, ())
    assert made.rules == {
        Rule(4, MAIN_PRIORITY, MAIN_TABLE),
        Rule(4, SOURCE_PRIORITY, TABLES + 2, A.ip),
        Rule(4, SOURCE_PRIORITY, TABLES + 3, B.ip),
    }
    assert made.routes == {
        route._replace(table=TABLES + route.ifindex, metric=0) for route in (LINK_A, LINK_B, BY_A, BY_B)
    }


def test_without_a_default_route_there_are_the_links_only() -> None:
    """And nothing for a family without addresses."""
    made = wanted([B], {4: [LINK_A, LINK_B, BY_A], 6: [Route(6, MAIN_TABLE, DEFAULT, 2, "fe80::1")]}, ())
    assert made.routes == {LINK_B._replace(table=TABLES + 3)}
    assert {rule.family for rule in made.rules} == {4}


def test_a_default_route_into_a_tunnel_is_obeyed() -> None:
    """The best one counts, by family."""
    tunnel = Route(4, MAIN_TABLE, DEFAULT, WG0, metric=50)
    main = {4: [LINK_A, BY_A, tunnel], 6: [Route(6, MAIN_TABLE, DEFAULT, 2, "fe80::1")]}
    assert {rule.family for rule in wanted([A, V6], main, {WG0}).rules} == {6}
    main[4] = [LINK_A, BY_A, tunnel._replace(metric=5000)]
    assert {rule.family for rule in wanted([A, V6], main, {WG0}).rules} == {4, 6}


def test_what_has_no_link_of_its_own_gets_nothing() -> None:
    """Addresses of VRFs, of dummies, and link-local ones."""
    apart = [replace(A, vrf=20), replace(A, holder=True), replace(V6, ip="fe80::1")]
    assert wanted(apart, {4: [LINK_A, BY_A], 6: []}, ()) == Routing()


def test_changes_are_made_in_an_order_in_which_nothing_leads_astray() -> None:
    """Links before gateways before rules; rules go first; a route that changes is replaced in place."""
    want = wanted([A, B], {4: [LINK_A, LINK_B, BY_A, BY_B], 6: []}, ())
    assert changes(want, want) == []
    verbs = [(c.verb, type(c.what)) for c in changes(Routing(), want)]
    assert verbs == [("add", Route)] * 4 + [("add", Rule)] * 3
    assert [c.what.gateway != "" for c in changes(Routing(), want)[:4] if isinstance(c.what, Route)] == [
        False, False, True, True,
    ]  # fmt: skip
    gone = changes(want, Routing())
    assert [type(c.what) for c in gone] == [Rule] * 3 + [Route] * 4
    assert gone[2] == Change("delete", Rule(4, MAIN_PRIORITY, MAIN_TABLE))
    other = wanted([A, B], {4: [LINK_A, LINK_B, BY_A, BY_B._replace(gateway="10.0.2.253")], 6: []}, ())
    assert [(c.verb, c.what) for c in changes(want, other)] == [
        ("add", r) for r in other.routes - want.routes
    ]
