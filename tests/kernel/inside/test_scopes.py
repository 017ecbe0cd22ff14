# SPDX-License-Identifier: Apache-2.0
"""Addresses that mean something in one place only: link-local ones, and this host's own as the peer's.

No service runs.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest

from pm.model import LocalAddress, Pair
from tests.lab.path_manager_programs import Load, accept_joins, local_address, pairs
from tests.lab.two_hosts import IPPROTO_MPTCP, TwoHosts, exchange
from tests.lab.waiting import wait_equal
from tests.unit.builders import policy

C1, C1B, C2, S1 = "fe80::c1", "fe80::c11", "fe80::c2", "fe80::51"
LINKS = [(C1, "eth1"), (C2, "eth2"), (C1B, "eth1")]


@pytest.fixture
def locals_(hosts: TwoHosts) -> list[LocalAddress]:
    """Three link-local addresses on two links, and a global one."""
    accept_joins(hosts)
    for ip, link in LINKS:
        # Deprecated: applications do not take it by themselves.
        more = [] if ip == C1 else ["preferred_lft", "0"]
        hosts.client.ip("addr", "add", f"{ip}/64", "dev", link, "nodad", *more)
    hosts.server.ip("addr", "add", f"{S1}/64", "dev", "eth1", "nodad")
    return [
        *(LocalAddress(ip, 64, ifindex(hosts, link), link, True, False, "") for ip, link in LINKS),
        local_address("fd00:2::1"),
    ]


def ifindex(hosts: TwoHosts, link: str) -> int:
    (shown,) = json.loads(hosts.client.ip("-j", "link", "show", link))
    return int(shown["ifindex"])


@pytest.mark.parametrize(
    ("name", "parameters", "more"),
    [
        ("ndiffports", {"subflows": 3}, (C1, C1)),
        ("fullmesh", {}, (C1B,)),
        ("fullmesh", {"subflows_per_pair": 2}, (C1, C1B, C1B)),
        ("backup", {}, ()),
    ],
)
def test_link_local_peer(
    hosts: TwoHosts,
    load: Load,
    locals_: list[LocalAddress],
    name: str,
    parameters: dict[str, int],
    more: tuple[str, ...],
) -> None:
    """It pairs with the link-local addresses of its link, bound to the interface, and with no others."""
    chosen = policy(name, parameters)
    load(hosts.client, chosen, locals_)
    client = hosts.keep(hosts.client.socket(10))
    with hosts.client.inside():
        client.bind((C1, 0, 0, ifindex(hosts, "eth1")))
    listener = hosts.listen("::")
    client.connect((S1, listener.getsockname()[1], 0, ifindex(hosts, "eth1")))
    server = hosts.keep(listener.accept()[0])
    exchange(client, server)
    expected = Counter(Pair(ip, S1, 5000) for ip in (C1, *more))
    wait_equal(lambda: pairs(hosts.client), expected)
    for _ in range(5):
        exchange(client, server)
    assert hosts.client.counter("BPFReq") == len(more)
    assert hosts.client.counter("BPFReqFailed") == 0


@pytest.mark.parametrize("name", ["ndiffports", "fullmesh", "backup"])
@pytest.mark.parametrize("ip", ["127.0.0.1", "127.7.7.7", "10.1.0.1", "::1", "fd00:2::1"])
def test_host_with_itself(hosts: TwoHosts, load: Load, name: str, ip: str) -> None:
    """All paths are one: nothing is opened, at either end."""
    accept_joins(hosts)
    addresses = [local_address(a) for a in ("10.1.0.1", "10.2.0.1", "fd00:1::1", "fd00:2::1")]
    load(hosts.client, policy(name), addresses)
    listener = hosts.keep(hosts.client.listen("::", 5000, protocol=IPPROTO_MPTCP))
    ends = hosts.connect(listener, ip)
    for _ in range(5):
        exchange(*ends)
    assert hosts.client.counter("BPFClaimed") == 2
    assert hosts.client.counter("BPFReq") == 0
