# SPDX-License-Identifier: Apache-2.0
"""What a peer cannot make the programs do: they bound it with no service running."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from pm.errors import KernelRefused
from pm.model import Pair
from tests.lab.path_manager_programs import Load, accept_joins, local_address, netlink, pairs
from tests.lab.two_hosts import TwoHosts, exchange
from tests.lab.waiting import wait_equal
from tests.unit.builders import policy

LOCALS = [local_address("10.1.0.1"), local_address("10.2.0.1")]
LOCALS6 = [local_address("fd00:1::1"), local_address("fd00:2::1")]
CAP = 4


@pytest.fixture(autouse=True)
def joins_accepted(hosts: TwoHosts) -> None:
    accept_joins(hosts)


@pytest.mark.parametrize("family", [4, 6])
def test_announced_addresses_that_are_no_peers(hosts: TwoHosts, load: Load, family: int) -> None:
    """They get no SYN and hold no place: an honest address that comes later has its subflows."""
    locals_ = LOCALS if family == 4 else LOCALS6
    bad = {
        4: ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "169.254.169.254", "10.1.0.1"],
        6: ["::1", "::", "ff02::1", "fe80::9", "fd00:1::1", "fd00:2::1"],
    }[family] + ["10.2.0.1", "127.9.9.9"]
    initial, honest = ("10.1.0.2", "10.2.0.2") if family == 4 else ("fd00:1::2", "fd00:2::2")
    server = load(hosts.server, policy("none"))
    load(hosts.client, policy("fullmesh", {"max_subflows": CAP}), locals_)
    ends = hosts.connect(hosts.listen("::"), initial)
    wait_equal(lambda: len(pairs(hosts.client)), 2)
    (token,) = server.tokens()
    with netlink(hosts.server) as genl:
        for address_id, ip in enumerate([*bad, honest], 2):
            genl.announce(token, ip, address_id)
            exchange(*ends)
    expected = {Pair(a.ip, remote, 5000) for a in locals_ for remote in (initial, honest)}
    wait_equal(lambda: set(pairs(hosts.client)), expected)
    assert hosts.client.counter("BPFReq") == len(expected) - 1


def test_a_peer_that_announces_and_withdraws_addresses(hosts: TwoHosts, load: Load) -> None:
    """The cap counts what is under way to withdrawn addresses too, and the session's rate holds."""
    server = load(hosts.server, policy("none"))
    load(hosts.client, policy("fullmesh", {"max_subflows": CAP}), LOCALS)
    hosts.connect(hosts.listen("::"), "10.1.0.2")
    wait_equal(lambda: len(pairs(hosts.client)), 2)
    (token,) = server.tokens()
    began = time.monotonic()
    with netlink(hosts.server) as genl:
        for turn in range(150):
            number = 3 + turn
            genl.announce(token, f"10.1.0.{number}", number)
            with suppress(KernelRefused):
                genl.withdraw(token, number - 2)
            opening = sum(flow.state == "SYN-SENT" for flow in hosts.client.subflows())
            assert opening <= CAP - 2
    assert hosts.client.counter("BPFReq") <= 10 + 10 * (time.monotonic() - began)
