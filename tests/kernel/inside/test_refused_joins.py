# SPDX-License-Identifier: Apache-2.0
"""A peer that refuses joins gets a known number of SYNs from the programs, whatever else happens.

It refuses at the third ACK, after the client had SUBFLOW_ESTABLISHED at the SYN/ACK. No service runs:
what is left over is for it to open, with backoff.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network
from typing import Any, NamedTuple

import pytest

from pm.model import LocalAddress, Pair
from pm.policies.model import Accept
from tests.lab.path_manager_programs import (
    Announced,
    Load,
    announce,
    local_address,
    open_by_hand,
    pairs,
)
from tests.lab.two_hosts import TwoHosts, exchange
from tests.lab.waiting import wait_equal
from tests.unit.builders import policy

RETRIES, OTHERS = 3, 4  # of path_manager_parts/subflows.h


class Links(NamedTuple):
    """Four local addresses, as of four links; the server's initial one, and one that it announces."""

    locals: tuple[str, ...]
    server: str
    other: str

    @property
    def addresses(self) -> list[LocalAddress]:
        return [local_address(ip) for ip in self.locals]

    @property
    def initial(self) -> Pair:
        return Pair(self.locals[0], self.server, 5000)


IP4 = Links(("10.1.0.1", "10.1.0.9", "10.2.0.1", "10.2.0.9"), "10.1.0.2", "10.2.0.2")
IP6 = Links(("fd00:1::1", "fd00:1::9", "fd00:2::1", "fd00:2::9"), "fd00:1::2", "fd00:2::2")


@pytest.fixture(params=[IP4, IP6], ids=["IPv4", "IPv6"])
def links(request: pytest.FixtureRequest, hosts: TwoHosts) -> Links:
    found: Links = request.param
    for ip, link in ((found.locals[1], "eth1"), (found.locals[3], "eth2")):
        # Deprecated: applications do not take it by themselves.
        more = ("nodad", "preferred_lft", "0") if ":" in ip else ()
        hosts.client.ip("addr", "add", f"{ip}/{64 if ':' in ip else 24}", "dev", link, *more)
    return found


@pytest.mark.parametrize("limit", [0, 1])
@pytest.mark.parametrize(
    ("name", "parameters", "wanted"),
    [
        ("fullmesh", {}, 3),
        ("fullmesh", {"max_subflows": 3}, 2),
        ("fullmesh", {"subflows_per_pair": 2}, 7),
        ("ndiffports", {"subflows": 5}, 4),
        ("backup", {}, 1),
    ],
)
def test_peer_at_its_limit(
    hosts: TwoHosts, load: Load, links: Links, name: str, parameters: dict[str, Any], wanted: int, limit: int
) -> None:
    """`ip mptcp limits set subflows 1` at the peer: the SYNs are the wanted ones, retries, and others."""
    hosts.server.mptcp("limits", "set", "subflows", str(limit))
    load(hosts.client, policy(name, parameters), links.addresses)
    ends = hosts.connect(hosts.listen("::"), links.server)
    most = wanted + RETRIES + OTHERS

    def quiet() -> bool:
        """Nothing is on its way."""
        return hosts.client.counter("MPJoinSynTx") == hosts.client.counter("BPFReq")

    wait_equal(quiet, True)
    wait_equal(lambda: pairs(hosts.client).total(), 1 + min(limit, wanted))
    for _ in range(20):
        exchange(*ends)
    before = hosts.client.counter("MPJoinSynTx")
    assert before <= most
    assert pairs(hosts.client).total() == 1 + min(limit, wanted)
    for _ in range(20):
        exchange(*ends)
    assert hosts.client.counter("MPJoinSynTx") == before


def test_peer_at_its_limit_with_many_pairs(hosts: TwoHosts, load: Load, links: Links) -> None:
    """Eight pairs and a cap of four: others have a place for a while, not each pair in turn."""
    hosts.server.mptcp("limits", "set", "subflows", "0")
    announce(hosts.server, [Announced(links.other)])
    load(hosts.client, policy("fullmesh", {"max_subflows": 4}), links.addresses)
    ends = hosts.connect(hosts.listen("::"), links.server)
    wait_equal(lambda: hosts.client.counter("AddAddr"), 1)
    wait_equal(lambda: hosts.client.counter("BPFReq"), 3 + RETRIES + OTHERS)
    wait_equal(lambda: pairs(hosts.client), Counter([links.initial]))
    for _ in range(20):
        exchange(*ends)
    assert hosts.client.counter("BPFReq") == 3 + RETRIES + OTHERS


def test_place_of_a_pair_that_keeps_failing(hosts: TwoHosts, load: Load, links: Links) -> None:
    """One address that the peer refuses, and a cap of two: another one has the place."""
    only = Accept(from_=tuple(ip_network(ip) for ip in links.locals[2:]))
    load(hosts.server, policy("none", accept=only))
    load(hosts.client, policy("fullmesh", {"max_subflows": 2}), links.addresses)
    ends = hosts.connect(hosts.listen("::"), links.server)
    expected = Counter([links.initial, links.initial._replace(local=links.locals[2])])
    wait_equal(lambda: pairs(hosts.client), expected)
    exchange(*ends)
    assert hosts.client.counter("BPFReq") == 1 + RETRIES + 1


def test_refused_again_for_the_service(hosts: TwoHosts, load: Load, links: Links) -> None:
    """What the service opens, and the peer refuses once more, is left to the service."""
    hosts.server.mptcp("limits", "set", "subflows", "0")
    program = load(hosts.client, policy("fullmesh"), links.addresses[:2])
    ends = hosts.connect(hosts.listen("::"), links.server)
    wait_equal(lambda: hosts.client.counter("BPFReq"), 1 + RETRIES)
    wait_equal(lambda: pairs(hosts.client), Counter([links.initial]))
    for number in range(1, 4):
        open_by_hand(hosts.client, program, links.initial._replace(local=links.locals[1]), 2)
        wait_equal(lambda: hosts.client.counter("MPJoinSynTx"), 1 + RETRIES + number)
        wait_equal(lambda: pairs(hosts.client), Counter([links.initial]))
        exchange(*ends)
    assert hosts.client.counter("BPFReq") == 1 + RETRIES
