# SPDX-License-Identifier: Apache-2.0
"""`backup`: which interface the standby has, and whether it is one, whatever the rules say of the primary's.

No service runs: what it would tell the program, and close, the test does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from socket import socket
from typing import NamedTuple

import pytest

from pm.linux.bpf.path_manager_maps import ClaimCounter
from pm.model import LocalAddress, Pair
from pm.policies.model import Accept
from tests.lab.path_manager_programs import (
    Announced,
    Load,
    accept_joins,
    announce,
    close_by_hand,
    local_address,
    pairs,
)
from tests.lab.two_hosts import TwoHosts, exchange
from tests.lab.waiting import wait_equal
from tests.unit.builders import policy

BACKUP = policy("backup")


class Addresses(NamedTuple):
    """At the client: of the first link, a second one of it, of the second link, a second one of that."""

    primary: str
    beside: str
    standby: str
    third: str
    server: str
    other: str  # of the server

    def pairs(self, *locals_: str) -> Counter[Pair]:
        return Counter(Pair(local, self.server, 5000) for local in locals_)


IP4 = Addresses("10.1.0.1", "10.1.0.9", "10.2.0.1", "10.2.0.9", "10.1.0.2", "10.2.0.2")
IP6 = Addresses("fd00:1::1", "fd00:1::9", "fd00:2::1", "fd00:2::9", "fd00:1::2", "fd00:2::2")


@pytest.fixture(params=[IP4, IP6], ids=["IPv4", "IPv6"])
def at(request: pytest.FixtureRequest, hosts: TwoHosts) -> Addresses:
    accept_joins(hosts)
    addresses: Addresses = request.param
    for ip, link in ((addresses.beside, "eth1"), (addresses.third, "eth2")):
        if ":" in ip:
            # Deprecated: applications do not take it by themselves.
            hosts.client.ip("addr", "add", f"{ip}/64", "dev", link, "nodad", "preferred_lft", "0")
        elif ip != "10.1.0.9":  # accept_joins() added it
            hosts.client.ip("addr", "add", f"{ip}/24", "dev", link)
    return addresses


def locals_of(*ips: str) -> list[LocalAddress]:
    return [local_address(ip) for ip in ips]


@contextmanager
def flags_unchanged(hosts: TwoHosts, *, standbys: int) -> Iterator[None]:
    """So many subflows are opened as standbys; no flag changes afterwards."""
    before = hosts.server.counter("MPJoinSynBackupRx")
    yield
    assert hosts.server.counter("MPJoinSynBackupRx") - before == standbys
    assert hosts.server.counter("MPPrioRx") == 0


def callback(hosts: TwoHosts, ends: tuple[socket, socket], at: Addresses) -> None:
    """Something that makes the program look at its session."""
    before = hosts.client.counter("AddAddr")
    announce(hosts.server, [Announced(at.other)])
    wait_equal(lambda: hosts.client.counter("AddAddr"), before + 1)
    exchange(*ends)


def test_primary_that_the_rules_exclude(hosts: TwoHosts, load: Load, at: Addresses) -> None:
    """Deprecated, or outside `include`: it works all the same, and its interface takes no standby."""
    program = load(hosts.client, BACKUP, locals_of(at.primary, at.beside, at.standby))
    program.set_local(0, local_address(at.primary), usable=False, up=True)
    with flags_unchanged(hosts, standbys=1):
        ends = hosts.connect(hosts.listen("::"), at.server)
        wait_equal(lambda: pairs(hosts.client), at.pairs(at.primary, at.standby))
        callback(hosts, ends, at)
        assert pairs(hosts.client) == at.pairs(at.primary, at.standby)


def test_primary_that_becomes_deprecated(hosts: TwoHosts, load: Load, at: Addresses) -> None:
    """Its standby stays a standby, and where it is."""
    program = load(hosts.client, BACKUP, locals_of(at.primary, at.beside, at.standby))
    with flags_unchanged(hosts, standbys=1):
        ends = hosts.connect(hosts.listen("::"), at.server)
        wait_equal(lambda: pairs(hosts.client), at.pairs(at.primary, at.standby))
        program.set_local(0, local_address(at.primary), usable=False, up=True)
        callback(hosts, ends, at)
        assert pairs(hosts.client) == at.pairs(at.primary, at.standby)


def test_primary_on_an_address_of_no_interface(hosts: TwoHosts, load: Load, at: Addresses) -> None:
    """One that was never seen up (AnyIP, TPROXY) is not lost: its standby is one."""
    program = load(hosts.client, BACKUP, locals_of(at.primary, at.standby))
    program.set_local(0, local_address(at.primary), usable=False, up=False)
    with flags_unchanged(hosts, standbys=1):
        ends = hosts.connect(hosts.listen("::"), at.server)
        wait_equal(lambda: pairs(hosts.client), at.pairs(at.primary, at.standby))
        callback(hosts, ends, at)


def test_lost_primary_promotes_its_standby(hosts: TwoHosts, load: Load, at: Addresses) -> None:
    """Gone and closed: the standby carries the data without the flag, and nothing else is opened."""
    program = load(hosts.client, BACKUP, locals_of(at.primary, at.beside, at.standby))
    ends = hosts.connect(hosts.listen("::"), at.server)
    wait_equal(lambda: pairs(hosts.client), at.pairs(at.primary, at.standby))
    exchange(*ends)
    program.set_local(0, local_address(at.primary), usable=False)
    close_by_hand(hosts.client, program, Pair(at.primary, at.server, 5000))
    wait_equal(lambda: hosts.server.counter("MPPrioRx"), 1)
    exchange(*ends)
    assert pairs(hosts.client) == at.pairs(at.standby)


def test_primary_that_the_peer_makes_a_backup(hosts: TwoHosts, load: Load, at: Addresses) -> None:
    """The standby is none at once, and is one again when the peer takes that back."""
    load(hosts.client, BACKUP, locals_of(at.primary, at.beside, at.standby))
    hosts.server.mptcp("endpoint", "add", at.server)
    ends = hosts.connect(hosts.listen("::"), at.server)
    wait_equal(lambda: pairs(hosts.client), at.pairs(at.primary, at.standby))
    exchange(*ends)
    for number, flag in enumerate(("backup", "nobackup"), start=1):
        hosts.server.mptcp("endpoint", "change", at.server, flag)
        wait_equal(lambda: hosts.client.counter("MPPrioRx"), number)
        wait_equal(lambda: hosts.server.counter("MPPrioRx"), number)
    exchange(*ends)
    assert pairs(hosts.client) == at.pairs(at.primary, at.standby)


def test_next_interface_when_the_standby_fails(hosts: TwoHosts, load: Load, at: Addresses) -> None:
    """The peer refuses the first pair: the next interface's is the standby, at once."""
    only = Accept(from_=(ip_network(at.third),))
    server = load(hosts.server, policy("none", accept=only))
    others = [*locals_of(at.primary, at.standby), on_third_interface(at.third)]
    load(hosts.client, BACKUP, others)
    with flags_unchanged(hosts, standbys=2):
        ends = hosts.connect(hosts.listen("::"), at.server)
        wait_equal(lambda: pairs(hosts.client), at.pairs(at.primary, at.third))
        exchange(*ends)
    assert server.count(ClaimCounter.JOINS_REFUSED) == 1
    assert hosts.client.counter("BPFReq") == 2


def on_third_interface(ip: str) -> LocalAddress:
    """For the program; the route decides where the packets go."""
    return LocalAddress(ip, 24, 9, "eth9", True, False, "")


def test_standbys_that_all_fail(hosts: TwoHosts, load: Load, at: Addresses) -> None:
    """Each is tried, a few of them again; then the service is to try."""
    load(hosts.server, policy("none", accept=Accept(max_subflows=1)))
    load(hosts.client, BACKUP, [*locals_of(at.primary, at.standby), on_third_interface(at.third)])
    ends = hosts.connect(hosts.listen("::"), at.server)
    # Three attempts are retries of the session; then each pair fails for good.
    wait_equal(lambda: hosts.server.counter("BPFJoinRefused"), 5)
    exchange(*ends)
    assert hosts.client.counter("BPFReq") == 5
    assert pairs(hosts.client) == at.pairs(at.primary)


def test_one_interface_whose_address_changes(hosts: TwoHosts, load: Load, at: Addresses) -> None:
    """The primary is lost for good: the new address on the same interface serves, and is no standby."""
    program = load(hosts.client, BACKUP, locals_of(at.primary))
    ends = hosts.connect(hosts.listen("::"), at.server)
    assert pairs(hosts.client) == at.pairs(at.primary)
    program.set_local(1, local_address(at.beside))
    callback(hosts, ends, at)
    assert pairs(hosts.client) == at.pairs(at.primary)
    program.set_local(0, local_address(at.primary), usable=False)
    close_by_hand(hosts.client, program, Pair(at.primary, at.server, 5000))
    wait_equal(lambda: pairs(hosts.client), at.pairs(at.beside))
    exchange(*ends)
    assert hosts.server.counter("MPJoinSynBackupRx") == 0
