# SPDX-License-Identifier: Apache-2.0
"""The programs open subflows only where the peer can be reached: not at an initial address that it
withdrew, whose joins it refuses (C flag), or that is a client's.

No service runs. The server's sessions are claimed by a program that opens nothing: RM_ADDR and
ADD_ADDR go out by netlink commands, as its service would send them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from pm.model import LocalAddress, Pair
from tests.lab.path_manager_programs import (
    Announced,
    Load,
    PathManagerProgram,
    accept_joins,
    announce,
    local_address,
    netlink,
    open_by_hand,
    pairs,
)
from tests.lab.two_hosts import TwoHosts, exchange
from tests.lab.waiting import wait_equal
from tests.unit.builders import policy

INITIAL_AGAIN = 7  # the id under which the server announces its initial address


class Addresses(NamedTuple):
    """One and two are of the links: `c` at the client, `s` at the server."""

    c1: str
    c2: str
    s1: str
    s2: str

    def pairs(self, *which: str) -> Counter[Pair]:
        """ "12" is the client's first address with the server's second."""
        clients, servers = (self.c1, self.c2), (self.s1, self.s2)
        return Counter(Pair(clients[int(w[0]) - 1], servers[int(w[1]) - 1], 5000) for w in which)

    @property
    def locals(self) -> list[LocalAddress]:
        return [local_address(self.c1), local_address(self.c2)]


IP4 = Addresses("10.1.0.1", "10.2.0.1", "10.1.0.2", "10.2.0.2")
IP6 = Addresses("fd00:1::1", "fd00:2::1", "fd00:1::2", "fd00:2::2")
BOTH = pytest.mark.parametrize("at", [IP4, IP6], ids=["IPv4", "IPv6"])


@pytest.fixture
def server(hosts: TwoHosts, load: Load) -> PathManagerProgram:
    program: PathManagerProgram = load(hosts.server, policy("none"))
    return program


Tell = Callable[..., None]
"""``tell(ip, id)``: the server announces an address; ``tell(id)``: it withdraws one."""


@pytest.fixture
def tell(hosts: TwoHosts, server: PathManagerProgram) -> Tell:
    def command(*arguments: Any) -> None:
        (token,) = server.tokens()
        with netlink(hosts.server) as genl:
            if len(arguments) == 2:
                genl.announce(token, *arguments)
            else:
                genl.withdraw(token, *arguments)

    return command


def ends_of(at: Addresses, pair: str) -> Pair:
    (found,) = at.pairs(pair)
    return found


def break_subflows(hosts: TwoHosts, at: Addresses, pair: str) -> None:
    """Reset the subflows of a pair."""
    local, remote, _ = ends_of(at, pair)
    hosts.client.run("ss", "-K", "src", f"[{local}]", "dst", f"[{remote}]")


@BOTH
def test_places_of_a_withdrawn_initial_address(
    hosts: TwoHosts, load: Load, tell: Tell, at: Addresses
) -> None:
    """RM_ADDR of id 0 with the cap used up: subflows to the other address take the places."""
    load(hosts.client, policy("fullmesh", {"max_subflows": 2}), at.locals)
    ends = hosts.connect(hosts.listen("::"), at.s1)
    wait_equal(lambda: pairs(hosts.client), at.pairs("11", "21"))
    tell(at.s2, 2)
    wait_equal(lambda: hosts.client.counter("AddAddr"), 1)
    tell(0)
    wait_equal(lambda: pairs(hosts.client), at.pairs("12", "22"))
    exchange(*ends)
    assert hosts.client.counter("BPFReq") == 3


@BOTH
def test_initial_address_is_announced_again(hosts: TwoHosts, load: Load, tell: Tell, at: Addresses) -> None:
    """After RM_ADDR of id 0 an ADD_ADDR makes it a remote address as any other; it may go once more.

    The peer has id 0 for those subflows: with the other id withdrawn they stay, and are not replaced.
    """
    load(hosts.client, policy("fullmesh"), at.locals)
    ends = hosts.connect(hosts.listen("::"), at.s1)
    wait_equal(lambda: pairs(hosts.client), at.pairs("11", "21"))
    tell(at.s2, 2)
    everything = at.pairs("11", "21", "12", "22")
    wait_equal(lambda: pairs(hosts.client), everything)
    tell(0)
    wait_equal(lambda: pairs(hosts.client), at.pairs("12", "22"))
    tell(at.s1, INITIAL_AGAIN)
    wait_equal(lambda: pairs(hosts.client), everything)
    tell(INITIAL_AGAIN)
    wait_equal(lambda: hosts.client.counter("RmAddr"), 2)
    break_subflows(hosts, at, "21")
    exchange(*ends)
    assert pairs(hosts.client) == at.pairs("11", "12", "22")
    tell(at.s1, INITIAL_AGAIN)
    wait_equal(lambda: pairs(hosts.client), everything)
    exchange(*ends)


@BOTH
@pytest.mark.parametrize("name", ["fullmesh", "backup", "ndiffports"])
def test_withdrawn_address_is_not_tried(
    hosts: TwoHosts, load: Load, tell: Tell, at: Addresses, name: str
) -> None:
    """What breaks after RM_ADDR of id 0 is not opened there again; the other address takes over."""
    program = load(hosts.client, policy(name), at.locals)
    ends = hosts.connect(hosts.listen("::"), at.s1)
    first = {"fullmesh": ("11", "21"), "backup": ("11", "21"), "ndiffports": ("11", "11")}[name]
    wait_equal(lambda: pairs(hosts.client), at.pairs(*first))
    tell(at.s2, 2)
    wait_equal(lambda: hosts.client.counter("AddAddr"), 1)
    if name == "ndiffports":
        open_pair(hosts, program, at, "22")
    before = hosts.client.counter("MPJoinSynTx")
    tell(0)
    left = {"fullmesh": ("12", "22"), "backup": ("22",), "ndiffports": ("22",)}[name]
    wait_equal(lambda: pairs(hosts.client), at.pairs(*left))
    exchange(*ends)
    assert hosts.client.counter("MPJoinSynTx") - before == (1 if name == "backup" else 0)


def open_pair(hosts: TwoHosts, program: PathManagerProgram, at: Addresses, pair: str) -> None:
    """By hand, as the operator may."""
    before = pairs(hosts.client)
    open_by_hand(hosts.client, program, ends_of(at, pair), 2)
    wait_equal(lambda: pairs(hosts.client), before + at.pairs(pair))


@BOTH
def test_backup_on_one_interface(hosts: TwoHosts, load: Load, tell: Tell, at: Addresses) -> None:
    """With the initial address withdrawn the primary is lost: its own interface serves, without the flag."""
    load(hosts.client, policy("backup"), at.locals[:1])
    ends = hosts.connect(hosts.listen("::"), at.s1)
    tell(at.s2, 2)
    wait_equal(lambda: hosts.client.counter("AddAddr"), 1)
    assert hosts.client.counter("BPFReq") == 0
    tell(0)
    wait_equal(lambda: pairs(hosts.client), at.pairs("12"))
    exchange(*ends)
    assert hosts.server.counter("MPJoinSynBackupRx") == 0


@BOTH
@pytest.mark.parametrize("name", ["fullmesh", "backup", "ndiffports"])
def test_denied_address_is_not_tried_after_the_initial_subflow_went(
    hosts: TwoHosts, load: Load, at: Addresses, name: str
) -> None:
    """The peer's C flag holds for the whole session, also for the pair of the initial subflow."""
    accept_joins(hosts)
    hosts.server.sysctl("net.mptcp.allow_join_initial_addr_port", 0)
    announce(hosts.server, [Announced(at.s2)])
    program = load(hosts.client, policy(name), at.locals)
    ends = hosts.connect(hosts.listen("::"), at.s1)
    wait_equal(lambda: hosts.client.counter("AddAddr"), 1)
    if name == "ndiffports":
        open_pair(hosts, program, at, "22")
    left = {"fullmesh": ("12", "22"), "backup": ("22",), "ndiffports": ("22",)}[name]
    wait_equal(lambda: pairs(hosts.client), at.pairs("11", *left))
    before = hosts.client.counter("MPJoinSynTx")
    break_subflows(hosts, at, "11")
    wait_equal(lambda: pairs(hosts.client), at.pairs(*left))
    exchange(*ends)
    if name == "ndiffports":
        return
    break_subflows(hosts, at, "22")
    # `backup` goes on with the next pair: its primary is lost for good, that interface may serve.
    again = {"fullmesh": ("12", "22"), "backup": ("12",)}[name]
    wait_equal(lambda: pairs(hosts.client), at.pairs(*again))
    assert hosts.client.counter("MPJoinSynTx") - before == 1


@BOTH
@pytest.mark.parametrize("name", ["none", "fullmesh", "backup", "ndiffports"])
def test_server_does_not_dial_its_client(hosts: TwoHosts, load: Load, at: Addresses, name: str) -> None:
    """A server whose session lost its initial subflow sends no SYN to the client's ephemeral port."""
    accept_joins(hosts)
    load(hosts.server, policy(name), [local_address(at.s1), local_address(at.s2)])
    hosts.client.mptcp("limits", "set", "subflows", "8")
    hosts.client.mptcp("endpoint", "add", at.c2, "subflow")
    ends = hosts.connect(hosts.listen("::"), at.s1)
    wait_equal(lambda: pairs(hosts.client), at.pairs("11", "21"))
    break_subflows(hosts, at, "11")
    wait_equal(lambda: len(hosts.server.subflows()), 1)
    exchange(*ends)
    assert hosts.server.counter("BPFReq") == hosts.server.counter("MPJoinSynTx") == 0
