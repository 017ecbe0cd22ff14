# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of the way between two addresses, for people who ask why nothing gets through."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import NamedTuple

from pm.kernel import PathFacts, RouteOver
from pm.linux.netlink.path_lookup import Flow, NoRoute, PathLookup
from pm.linux.netlink.routing_tables import read_over
from pm.linux.netlink.source_routes import Route
from pm.model import family_of

CONF = Path("/proc/sys/net/ipv4/conf")
TABLES_MAX = 8


class PathQuestion(NamedTuple):
    """``ifindex`` is that of the interface with the local address, and ``interface`` its name."""

    flow: Flow
    ifindex: int
    interface: str


def read_paths(questions: Sequence[PathQuestion]) -> list[PathFacts]:
    """One answer per question, in order. For a thread: a routing table can be long. Raises OSError."""
    over: dict[tuple[int, int], list[Route]] = {}
    with PathLookup.open() as lookup:
        return [_read(lookup, question, over) for question in questions]


def _read(lookup: PathLookup, question: PathQuestion, over: dict[tuple[int, int], list[Route]]) -> PathFacts:
    flow, ifindex, interface = question
    family = family_of(flow.local)
    if (family, ifindex) not in over:
        over[family, ifindex] = read_over(family, ifindex)
    leaves_by, error = _leaves_by(lookup, flow)
    answers = _leaves_by(lookup, flow._replace(mark=0))[0] if flow.mark else leaves_by
    rp_filter = (_rp_filter("all"), _rp_filter(interface)) if family == 4 else (0, 0)
    routes = [r for r in over[family, ifindex] if _leads_to(r.destination, flow.remote)]
    found = dict.fromkeys(RouteOver(r.table, r.gateway) for r in routes)
    return PathFacts(interface, leaves_by, error, answers, rp_filter, tuple(found)[:TABLES_MAX])


def _leaves_by(lookup: PathLookup, flow: Flow) -> tuple[str, str]:
    """(name of the interface, name of the error)."""
    try:
        return socket.if_indextoname(lookup.interface_of(flow)), ""
    except NoRoute as e:
        return "", str(e)
    except OSError as e:  # an interface that is gone by now, too
        return "", e.strerror or "unknown"


def _leads_to(destination: str, ip: str) -> bool:
    return not destination or ip_address(ip) in ip_network(destination)


def _rp_filter(interface: str) -> int:
    try:
        return int((CONF / interface / "rp_filter").read_text())
    except (OSError, ValueError):
        return 0
