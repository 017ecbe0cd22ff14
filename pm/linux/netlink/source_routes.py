# SPDX-License-Identifier: Apache-2.0
"""The rules and routes with which packets leave by the interface of their source address. Pure.

What every guide tells people to script: a table per interface, with the routes that ``main`` has over it, and
a rule per address. ``main`` is asked first for everything but its default route, so that what the host knows
better (its own links, containers, the networks of a VPN) goes on as before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pm.model import LocalAddress, family_of, is_link_local

PROTOCOL = 77  # of rules and routes: by it those of an earlier run are known; not in /etc/iproute2/rt_protos
MAIN_TABLE = 254
# Right before `main` (32766). Other people's rules, which the kernel puts before those there are, come first.
MAIN_PRIORITY, SOURCE_PRIORITY = 32764, 32765
TABLES = 0x4D500000  # and the index of the interface
DEFAULT = ""  # as destination


class Route(NamedTuple):
    """A unicast route. ``destination`` is a prefix or DEFAULT; ``gateway`` "" for what is on the link.

    ``gateway`` of an IPv4 route can be an IPv6 address (RFC 5549). ``metric`` is compared, not copied.
    """

    family: int
    table: int
    destination: str
    ifindex: int
    gateway: str = ""
    onlink: bool = False
    mtu: int = 0
    metric: int = 0


class Rule(NamedTuple):
    """``from SOURCE lookup TABLE``; without ``source``: ``lookup main suppress_prefixlength 0``."""

    family: int
    priority: int
    table: int
    source: str = ""


class Routing(NamedTuple):
    """Rules and routes of ours."""

    rules: frozenset[Rule] = frozenset()
    routes: frozenset[Route] = frozenset()


def wanted(
    addresses: Iterable[LocalAddress], main: Mapping[int, Sequence[Route]], tunnels: Collection[int]
) -> Routing:
    """What should be there for these usable addresses. ``main`` has the routes of that table by family.

    Nothing of a family whose own default route leads into a tunnel: a VPN must not be bypassed.
    """
    rules: set[Rule] = set()
    routes: set[Route] = set()
    for family, there in main.items():
        of_family = [a for a in addresses if a.family == family and _has_a_link(a)]
        if not of_family or _leads_into(tunnels, there):
            continue
        rules.add(Rule(family, MAIN_PRIORITY, MAIN_TABLE))
        for address in of_family:
            table = TABLES + address.ifindex
            rules.add(Rule(family, SOURCE_PRIORITY, table, address.ip))
            routes.update(_copied(there, address.ifindex, table))
    return Routing(frozenset(rules), frozenset(routes))


def _has_a_link(address: LocalAddress) -> bool:
    return not address.vrf and not address.holder and not is_link_local(address.ip)


def _leads_into(tunnels: Collection[int], routes: Sequence[Route]) -> bool:
    defaults = [route for route in routes if route.destination == DEFAULT]
    return bool(defaults) and min(defaults, key=lambda route: route.metric).ifindex in tunnels


def _copied(main: Sequence[Route], ifindex: int, table: int) -> Iterable[Route]:
    """The links' own prefixes, and the best default route over the interface."""
    over = [route for route in main if route.ifindex == ifindex]
    for route in over:
        if route.destination != DEFAULT:
            yield route._replace(table=table, metric=0)
    defaults = [route for route in over if route.destination == DEFAULT]
    if defaults:
        best = min(defaults, key=lambda route: (route.metric, route.gateway))
        yield best._replace(table=table, metric=0)


class Change(NamedTuple):
    """What to do, in this order: ``add`` replaces a route to the same destination."""

    verb: str  # add or delete
    what: Rule | Route


def changes(there: Routing, want: Routing) -> list[Change]:
    """From what is there to what is wanted: what comes first, routes before the rules that lead to them.

    The rule for ``main`` is before those for sources by its priority, and goes after them.
    """
    replaced = {_place(route) for route in want.routes}
    # Gateways need the route to their link.
    missing = sorted(want.routes - there.routes, key=lambda route: (route.gateway != "", route))
    added: list[Rule | Route] = [*missing]
    added += sorted(want.rules - there.rules)
    gone: list[Rule | Route] = sorted(there.rules - want.rules, reverse=True)
    gone += [route for route in sorted(there.routes - want.routes) if _place(route) not in replaced]
    return [*(Change("add", what) for what in added), *(Change("delete", what) for what in gone)]


def _place(route: Route) -> tuple[int, int, str]:
    return route.family, route.table, route.destination


def family_of_route(route: Route) -> int:
    """4 or 6, that of its gateway if it has one."""
    return family_of(route.gateway) if route.gateway else route.family
