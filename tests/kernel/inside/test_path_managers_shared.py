# SPDX-License-Identifier: Apache-2.0
"""What the path managers' programs share: counts of subflows, start conditions, accept rules, claims.

No service runs: where a test needs its hand, it sends the netlink command itself.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from ipaddress import ip_network
from socket import AF_INET6

import pytest

from pm.linux.bpf.path_manager_maps import ClaimCounter
from pm.model import Pair
from pm.policies.model import Accept, Start
from tests.lab.path_manager_programs import (
    Announced,
    Load,
    Topology,
    accept_joins,
    announce,
    close_by_hand,
    count,
    local_address,
    open_by_hand,
    pairs,
    settled,
    wanted,
)
from tests.lab.service import ROOT
from tests.lab.sock_ops import SockOpsProgram
from tests.lab.two_hosts import TwoHosts, exchange
from tests.lab.waiting import wait_equal, wait_for
from tests.unit.builders import policy

FULLMESH = policy("fullmesh")
ONE, TWO = Topology(("10.1.0.1",)), Topology(("10.1.0.1", "10.2.0.1"))
THREE = Topology(("10.1.0.1", "10.2.0.1", "10.1.0.9"))
IP6 = Topology(("fd00:1::1", "fd00:2::1"), "fd00:1::2")
INITIAL, OTHER = Pair("10.1.0.1", "10.1.0.2", 5000), Pair("10.2.0.1", "10.1.0.2", 5000)
SECOND_INTERFACE = ROOT / "docs/examples/second_interface/second_interface.c"


@pytest.fixture(autouse=True)
def joins_accepted(hosts: TwoHosts) -> None:
    accept_joins(hosts)


# Counts


@pytest.mark.parametrize("most", [8, 3])
def test_subflows_of_the_service_count(hosts: TwoHosts, load: Load, most: int) -> None:
    """What somebody else opened is not opened again, and counts for the cap."""
    chosen = policy("fullmesh", {"max_subflows": most})
    program = load(hosts.client, chosen, ONE.addresses)
    client, _ = hosts.connect(hosts.listen("::"))
    program.configure(chosen, TWO.addresses)
    open_by_hand(hosts.client, program, OTHER, 2)
    wait_equal(lambda: pairs(hosts.client), Counter([INITIAL, OTHER]))
    remotes = (Announced("10.2.0.2"),)
    announce(hosts.server, remotes)
    expected = count(wanted(chosen, TWO, client, remotes))
    wait_equal(lambda: pairs(hosts.client), expected)
    assert hosts.client.counter("BPFReq") == expected.total() - 2


def test_subflow_of_an_address_that_went(hosts: TwoHosts, load: Load) -> None:
    """One that ends after its address left makes room below the cap, and is not tried again."""
    chosen = policy("fullmesh", {"max_subflows": 2})
    program = load(hosts.client, chosen, TWO.addresses)
    client, _ = hosts.connect(hosts.listen("::"))
    settled(hosts, client, wanted(chosen, TWO, client))
    program.set_local(1, TWO.addresses[1], usable=False)
    close_by_hand(hosts.client, program, OTHER)
    wait_equal(lambda: pairs(hosts.client), Counter([INITIAL]))
    assert hosts.client.counter("BPFReq") == 1
    program.set_local(2, local_address("10.1.0.9"))
    announce(hosts.server, [Announced("10.2.0.2")])
    expected = count(wanted(chosen, Topology(("10.1.0.1", "10.1.0.9")), client))
    wait_equal(lambda: pairs(hosts.client), expected)
    assert hosts.client.counter("BPFReq") == 2


def test_closed_on_command_stays_closed(hosts: TwoHosts, load: Load) -> None:
    """The service or the operator closed it; one that fails later is replaced, the former still is not."""
    program = load(hosts.client, policy("ndiffports", {"subflows": 3}))
    client, server = hosts.connect(hosts.listen("::"))
    wait_equal(lambda: pairs(hosts.client), Counter({INITIAL: 3}))
    first = client.getsockname()[1]
    close_by_hand(hosts.client, program, INITIAL, but=first)
    wait_equal(lambda: pairs(hosts.client), Counter({INITIAL: 2}))
    exchange(client, server)
    assert hosts.client.counter("BPFReq") == 2
    hosts.client.run("ss", "-K", "src", "10.1.0.1", "dport", "=", "5000", "and", "sport", "!=", str(first))
    wait_equal(lambda: hosts.client.counter("BPFReq"), 3)
    wait_equal(lambda: pairs(hosts.client), Counter({INITIAL: 2}))
    exchange(client, server)
    assert hosts.client.counter("BPFReq") == 3


# Start conditions


@pytest.mark.parametrize("name", ["ndiffports", "fullmesh", "backup"])
def test_start_after(hosts: TwoHosts, load: Load, name: str) -> None:
    """No subflow before the session has its age, then all, with the next packet."""
    chosen = policy(name, start=Start(after=0.3))
    load(hosts.client, chosen, THREE.addresses)
    before = time.monotonic()
    client, server = hosts.connect(hosts.listen("::"))

    def started() -> bool:
        exchange(client, server)
        return hosts.client.counter("BPFReq") > 0

    wait_for(started, "start")
    assert time.monotonic() - before >= 0.3
    settled(hosts, client, wanted(chosen, THREE, client))


@pytest.mark.parametrize("sender", ["client", "server", "both"])
def test_start_after_bytes(hosts: TwoHosts, load: Load, sender: str) -> None:
    """No subflow before the session moved its bytes, whoever sent them; then packets are not looked at."""
    parse = SockOpsProgram("parse")
    parse.attach(hosts.client.cgroup)
    chosen = policy("fullmesh", start=Start(after_bytes=65536))
    load(hosts.client, chosen, THREE.addresses)
    client, server = hosts.connect(hosts.listen("::"))

    def move(size: int) -> None:
        for name, one, other in (("client", client, server), ("server", server, client)):
            if sender in (name, "both"):
                one.sendall(bytes(size))
                received = 0
                while received < size:
                    received += len(other.recv(size - received))

    def parsed() -> int:
        return parse.integers("parsed")[0]

    move(20_000)
    assert parsed() > 0
    assert hosts.client.counter("BPFReq") == 0
    move(100_000)
    settled(hosts, client, wanted(chosen, THREE, client))
    until_here = parsed()
    move(20_000)
    assert parsed() == until_here
    parse.detach(hosts.client.cgroup)


# Accept rules


def test_accept_max_subflows(hosts: TwoHosts, load: Load) -> None:
    """The peer's joins are let in up to the limit, and again when there is room."""
    program = load(hosts.server, policy("none", accept=Accept(max_subflows=2)))
    opener = load(hosts.client, FULLMESH, THREE.addresses)
    client, server = hosts.connect(hosts.listen("::"))
    # Two are asked for, one is refused and tried again three times.
    wait_equal(lambda: hosts.server.counter("BPFJoinRefused"), 4)
    wait_equal(lambda: (pairs(hosts.client).total(), len(hosts.server.subflows())), (2, 2))
    assert program.count(ClaimCounter.JOINS_REFUSED) == 4
    (accepted,) = pairs(hosts.client) - Counter([INITIAL])
    close_by_hand(hosts.client, opener, accepted)
    wait_equal(lambda: len(hosts.server.subflows()), 1)
    open_by_hand(hosts.client, opener, accepted, THREE.locals.index(accepted.local) + 1)
    wait_equal(lambda: (pairs(hosts.client).total(), len(hosts.server.subflows())), (2, 2))
    exchange(client, server)
    assert hosts.server.counter("BPFJoinRefused") == 4


@pytest.mark.parametrize(
    ("topology", "prefixes", "expected"),
    [
        (THREE, ["10.1.0.0/24"], ["10.1.0.1", "10.1.0.9"]),
        (THREE, ["10.3.0.0/16", "10.2.0.1/32"], ["10.1.0.1", "10.2.0.1"]),
        (
            THREE._replace(server="::ffff:10.1.0.2", family=AF_INET6),
            ["10.2.0.0/16"],
            ["10.1.0.1", "10.2.0.1"],
        ),
        (IP6, ["10.0.0.0/8", "fd00:2::/64"], ["fd00:1::1", "fd00:2::1"]),
        (IP6, ["10.0.0.0/8", "fd00:1::/64"], ["fd00:1::1"]),
    ],
    ids=["prefix", "host", "v4-mapped", "IPv6", "IPv6 refused"],
)
def test_accept_from(
    hosts: TwoHosts, load: Load, topology: Topology, prefixes: list[str], expected: list[str]
) -> None:
    """The peer's joins are let in from the listed prefixes only."""
    networks = tuple(ip_network(p) for p in prefixes)
    load(hosts.server, policy("none", accept=Accept(from_=networks)))
    load(hosts.client, FULLMESH, topology.addresses)
    ends = hosts.connect(hosts.listen("::"), topology.server, family=topology.family)
    refused = 4 * (len(topology.locals) - len(expected))  # each is tried again three times
    wait_equal(lambda: hosts.server.counter("BPFJoinRefused"), refused)
    wait_equal(lambda: sorted(p.local for p in pairs(hosts.client).elements()), expected)
    exchange(*ends)


def test_peer_that_wants_no_joins_to_its_initial_address(hosts: TwoHosts, load: Load) -> None:
    """The C flag of MP_CAPABLE: subflows go to announced addresses only."""
    hosts.server.sysctl("net.mptcp.allow_join_initial_addr_port", 0)
    listener, remotes = hosts.listen("::"), (Announced("10.2.0.2"),)
    program = load(hosts.client, policy("ndiffports", {"subflows": 3}))
    for end in hosts.connect(listener):
        end.close()
    wait_equal(program.sessions, 0)
    program.close()
    assert hosts.client.counter("BPFReq") == 0
    load(hosts.client, FULLMESH, TWO.addresses)
    client, _ = hosts.connect(listener)
    settled(hosts, client, wanted(FULLMESH, TWO, client, deny_join_id0=True))
    announce(hosts.server, remotes)
    settled(hosts, client, wanted(FULLMESH, TWO, client, remotes, deny_join_id0=True))


# Claims


def test_no_room_for_another_session(hosts: TwoHosts, load: Load) -> None:
    """A session beyond the map's room stays with the kernel's path manager, and is counted."""
    program = load(hosts.client, policy("ndiffports"), room=1)
    listener = hosts.listen("::")
    ends = [hosts.connect(listener) for _ in range(2)]
    wait_equal(lambda: pairs(hosts.client), Counter({INITIAL: 3}))
    for pair in ends:
        exchange(*pair)
    assert hosts.client.counter("BPFClaimed") == program.sessions() == 1
    assert program.count(ClaimCounter.CLAIMED) == program.count(ClaimCounter.CLAIM_FAILED) == 1


def test_session_of_another_policy(hosts: TwoHosts, load: Load) -> None:
    """After a reload the new policy's program lets a former one's session be, and forgets it when it ends."""
    program = load(hosts.client, FULLMESH, TWO.addresses)
    listener = hosts.listen("::")
    client, server = hosts.connect(listener)
    settled(hosts, client, wanted(FULLMESH, TWO, client))
    other = replace(FULLMESH, name="other")
    program.configure(other, TWO.addresses)
    program.replace(other)
    remotes = (Announced("10.2.0.2"),)
    announce(hosts.server, remotes)
    second, _ = hosts.connect(listener)
    expected = count(wanted(FULLMESH, TWO, client)) + count(wanted(other, TWO, second, remotes))
    wait_equal(lambda: pairs(hosts.client), expected)
    exchange(client, server)
    assert pairs(hosts.client) == expected
    client.close()
    wait_equal(program.sessions, 1)


# Third parties


@pytest.mark.parametrize("subflows", [1, 2, 5])
def test_third_party(hosts: TwoHosts, load: Load, subflows: int) -> None:
    """A file that the policy names is a program like ours, with its parameters."""
    parameters = {
        "name": "second_interface",
        "source": str(SECOND_INTERFACE),
        "parameters": {"subflows": subflows},
    }
    hosts.client.ip("addr", "add", "10.2.0.9/24", "dev", "eth2")
    topology = Topology(("10.1.0.1", "10.2.0.1", "10.1.0.9", "10.2.0.9"))
    load(hosts.client, policy("program", parameters), topology.addresses)
    hosts.connect(hosts.listen("::"))
    others = [Pair(ip, "10.1.0.2", 5000) for ip in ("10.2.0.1", "10.2.0.9")][:subflows]
    wait_equal(lambda: pairs(hosts.client), Counter([INITIAL, *others]))
    assert hosts.client.counter("BPFReq") == len(others)
