# SPDX-License-Identifier: Apache-2.0
"""The programs in bpf_pm/path_managers open what the pure functions of the same name want.

Only the kernel and the programs are at work: no service runs.
"""

from __future__ import annotations

import random
import socket
from collections import Counter

import pytest

from pm.model import Pair, Role, Wanted
from tests.lab.path_manager_programs import (
    Announced,
    Load,
    Topology,
    accept_joins,
    announce,
    count,
    local_address,
    pairs,
    settled,
    wanted,
)
from tests.lab.two_hosts import CGROUPS, TwoHosts, exchange
from tests.lab.waiting import wait_equal
from tests.unit.builders import policy


@pytest.fixture(autouse=True)
def joins_accepted(hosts: TwoHosts) -> None:
    """The server's own path manager takes what the client opens; the client has a third address."""
    accept_joins(hosts)


NDIFFPORTS, FULLMESH, BACKUP = policy("ndiffports"), policy("fullmesh"), policy("backup")
ONE = Topology(("10.1.0.1",))
TWO = Topology(("10.1.0.1", "10.2.0.1"))
THREE = Topology(("10.1.0.1", "10.2.0.1", "10.1.0.9"))
TOPOLOGIES = {
    "one address": ONE,
    "two addresses": TWO,
    "three addresses": THREE,
    "initial address last": Topology(("10.2.0.1", "10.1.0.9", "10.1.0.1")),
    "initial address not usable": Topology(("10.2.0.1",)),
    "announced": Topology(THREE.locals, announced=(Announced("10.2.0.2"),)),
    "announced port": Topology(TWO.locals, announced=(Announced("10.2.0.2", 5001),)),
    "announced IPv6, IPv4 socket": Topology((*TWO.locals, "fd00:2::1"), announced=(Announced("fd00:2::2"),)),
    "IPv6": Topology(("fd00:1::1", "fd00:2::1"), "fd00:1::2", (Announced("fd00:2::2"),)),
    "dual stack": Topology(("fd00:1::1", "10.1.0.1", "10.2.0.1"), "fd00:1::2", (Announced("10.2.0.2"),)),
    "v4-mapped": Topology(TWO.locals, "::ffff:10.1.0.2", (Announced("10.2.0.2"),), socket.AF_INET6),
    "initial address is backup": Topology(("10.2.0.1", "10.1.0.1!")),
    "backup": Topology(("10.1.0.1", "10.2.0.1!", "10.1.0.9")),
}


@pytest.mark.parametrize("subflows", [1, 2, 5])
@pytest.mark.parametrize("name", ["two addresses", "IPv6", "v4-mapped"])
def test_ndiffports(hosts: TwoHosts, load: Load, name: str, subflows: int) -> None:
    """ndiffports opens its number of subflows between the initial addresses."""
    topology = TOPOLOGIES[name]
    chosen = policy("ndiffports", {"subflows": subflows})
    load(hosts.client, chosen)
    client, _ = hosts.connect(hosts.listen("::"), topology.server, family=topology.family)
    settled(hosts, client, wanted(chosen, topology, client))


@pytest.mark.parametrize(("per_pair", "most"), [(1, 8), (1, 3), (1, 1), (2, 8), (3, 4)], ids=lambda n: str(n))
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_fullmesh(hosts: TwoHosts, load: Load, name: str, per_pair: int, most: int) -> None:
    """fullmesh opens every pair of one family, by round, up to its cap."""
    topology = TOPOLOGIES[name]
    if per_pair > 1 and len(topology.locals) * (1 + len(topology.announced)) * per_pair > most:
        # Further rounds that used up the cap before an announcement are for the service to correct.
        topology = topology._replace(announced=())
    announce(hosts.server, topology.announced)
    chosen = policy("fullmesh", {"subflows_per_pair": per_pair, "max_subflows": most})
    load(hosts.client, chosen, topology.addresses)
    client, _ = hosts.connect(hosts.listen("::"), topology.server, family=topology.family)
    settled(hosts, client, wanted(chosen, topology, client, topology.announced))


def test_fullmesh_follows_announcements(hosts: TwoHosts, load: Load) -> None:
    """An address that is announced later gets its subflows, a withdrawn one is forgotten."""
    load(hosts.client, FULLMESH, TWO.addresses)
    client, server = hosts.connect(hosts.listen("::"))
    remotes = (Announced("10.2.0.2"),)
    settled(hosts, client, wanted(FULLMESH, TWO, client))
    announce(hosts.server, remotes)
    settled(hosts, client, wanted(FULLMESH, TWO, client, remotes))
    hosts.server.mptcp("endpoint", "delete", "id", "1")
    wait_equal(lambda: pairs(hosts.client), count(wanted(FULLMESH, TWO, client)))
    announce(hosts.server, remotes)
    wait_equal(lambda: pairs(hosts.client), count(wanted(FULLMESH, TWO, client, remotes)))
    exchange(client, server)


def test_maps_change_under_the_program(hosts: TwoHosts, load: Load) -> None:
    """Parameters and addresses written later count for new sessions, for old ones in the next callback."""
    program = load(hosts.client, FULLMESH, ONE.addresses)
    listener = hosts.listen("::")
    client, _ = hosts.connect(listener)
    settled(hosts, client, wanted(FULLMESH, ONE, client))
    capped = policy("fullmesh", {"subflows_per_pair": 2, "max_subflows": 3})
    program.configure(capped, TWO.addresses)
    second, _ = hosts.connect(listener)
    expected = count(wanted(FULLMESH, ONE, client)) + count(wanted(capped, TWO, second))
    wait_equal(lambda: pairs(hosts.client), expected)
    program.configure(FULLMESH, TWO.addresses)
    remotes = (Announced("10.2.0.2"),)
    announce(hosts.server, remotes)
    first = count(wanted(FULLMESH, TWO, client, remotes))
    surplus = expected - count(wanted(FULLMESH, ONE, client)) - first  # stays open
    wait_equal(lambda: pairs(hosts.client), first + first + surplus)


def test_server_opens_nothing_to_an_ephemeral_port(hosts: TwoHosts, load: Load) -> None:
    """On the server both claim, and open nothing to a client that announced no port."""
    hosts.client.mptcp("limits", "set", "subflows", "0", "add_addr_accepted", "0")
    listener = hosts.listen("::")
    for name, parameters in (("ndiffports", {"subflows": 4}), ("fullmesh", {"subflows_per_pair": 2})):
        program = load(hosts.server, policy(name, parameters), [local_address("10.1.0.2")])
        for end in hosts.connect(listener):
            end.close()
        wait_equal(program.sessions, 0)
        program.close()
    assert hosts.server.counter("BPFClaimed") == 2
    assert hosts.server.counter("BPFReq") == 0


@pytest.mark.parametrize("name", ["ndiffports", "fullmesh"])
def test_hundred_sessions(hosts: TwoHosts, load: Load, name: str) -> None:
    """A hundred sessions at once all get their subflows, and leave nothing in the map."""
    chosen = policy(name, {"subflows": 3} if name == "ndiffports" else {})
    program = load(hosts.client, chosen, THREE.addresses)
    listener = hosts.listen("::")
    ends = [hosts.connect(listener) for _ in range(100)]
    one = wanted(chosen, THREE, ends[0][0])
    expected = Counter({pair: 100 * want.subflows for pair, want in one.items()})
    assert hosts.client.counter("BPFClaimed") == 100
    wait_equal(lambda: pairs(hosts.client), expected, deadline_s=30.0)
    assert program.sessions() == 100
    for client, server in ends:
        client.close()
        server.close()
    wait_equal(program.sessions, 0, deadline_s=10.0)


def test_sessions_outside_keep_the_kernel_path_manager(hosts: TwoHosts, load: Load) -> None:
    """Outside of the cgroup the namespace's endpoints work as ever, inside they are not used."""
    hosts.client.mptcp("limits", "set", "subflows", "2")
    hosts.client.mptcp("endpoint", "add", "10.2.0.1", "dev", "eth2", "subflow")
    load(hosts.client, NDIFFPORTS)
    listener = hosts.listen("::")
    with hosts.client.inside():
        (CGROUPS / "cgroup.procs").write_text("0")
        outside = hosts.keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262))
    outside.connect(("10.1.0.2", 5000))
    exchange(outside, hosts.keep(listener.accept()[0]))
    initial, other = Pair("10.1.0.1", "10.1.0.2", 5000), Pair("10.2.0.1", "10.1.0.2", 5000)
    wait_equal(lambda: pairs(hosts.client), Counter({initial: 1, other: 1}))
    hosts.connect(listener)
    wait_equal(lambda: pairs(hosts.client), Counter({initial: 3, other: 1}))
    assert hosts.client.counter("BPFClaimed") == 1


def test_innermost_cgroup_wins(hosts: TwoHosts, load: Load) -> None:
    """Of two programs on the way to the root, the inner one has the session, alone."""
    program = load(hosts.client, FULLMESH, THREE.addresses)
    outer = hosts.client.cgroup
    hosts.client.cgroup = outer / "inner"
    hosts.client.cgroup.mkdir()
    try:
        inner = load(hosts.client, NDIFFPORTS)
        client, server = hosts.connect(hosts.listen("::"))
        settled(hosts, client, wanted(NDIFFPORTS, TWO, client))
        assert (inner.sessions(), program.sessions()) == (1, 0)
        inner.close()
        client.close()
        server.close()
    finally:
        hosts.client.cgroup.rmdir()
        hosts.client.cgroup = outer


def test_failed_subflow_is_tried_again_a_few_times(hosts: TwoHosts, load: Load) -> None:
    """Subflows that the server resets are opened again three times, not for ever."""
    hosts.server.mptcp("limits", "set", "subflows", "0")
    for chosen in (NDIFFPORTS, FULLMESH):
        before = hosts.client.counter("BPFReq")
        program = load(hosts.client, chosen, TWO.addresses)
        client, server = hosts.connect(hosts.listen("10.1.0.2", 5000 + before))
        wait_equal(lambda: hosts.client.counter("BPFReq"), before + 4)
        wait_equal(lambda: len(hosts.client.subflows()), 1)
        exchange(client, server)
        assert hosts.client.counter("BPFReq") - before == 4
        for end in (client, server):
            end.close()
        wait_equal(program.sessions, 0)
        program.close()


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_backup(hosts: TwoHosts, load: Load, name: str) -> None:
    """backup opens its one standby, over another interface, with the backup flag."""
    topology = TOPOLOGIES[name]
    announce(hosts.server, topology.announced)
    load(hosts.client, BACKUP, topology.addresses)
    client, _ = hosts.connect(hosts.listen("::"), topology.server, family=topology.family)
    settled(hosts, client, wanted(BACKUP, topology, client, topology.announced))


def test_backup_is_promoted(hosts: TwoHosts, load: Load) -> None:
    """When the primary is reset the standby loses its flag, and gets it back with a new primary."""
    load(hosts.client, BACKUP, TWO.addresses)
    client, server = hosts.connect(hosts.listen("::"))
    expected = wanted(BACKUP, TWO, client)
    settled(hosts, client, expected)
    exchange(client, server)
    hosts.client.run("ss", "-K", "src", "10.1.0.1", "dport", "=", "5000")
    wait_equal(lambda: hosts.server.counter("MPPrioRx"), 2)
    wait_equal(lambda: pairs(hosts.client), count(expected))
    exchange(client, server)


def test_server_opens_to_an_announced_port(hosts: TwoHosts, load: Load) -> None:
    """A client that announces an address with a port is joined there, from each of the server's."""
    hosts.client.mptcp("limits", "set", "subflows", "8")
    topology = Topology(("10.1.0.2", "10.2.0.2", "fd00:2::2"))
    remotes = (Announced("10.2.0.1", 5555),)
    load(hosts.server, FULLMESH, topology.addresses)
    client, server = hosts.connect(hosts.listen("::"))
    expected = count(wanted(FULLMESH, topology, server, role=Role.SERVER))
    assert pairs(hosts.server) == expected
    announce(hosts.client, remotes)
    expected = count(wanted(FULLMESH, topology, server, remotes, role=Role.SERVER))
    wait_equal(lambda: pairs(hosts.server), expected)
    exchange(client, server)
    assert hosts.server.counter("BPFReq") == 2


LOCALS = ("10.1.0.1", "10.1.0.9", "10.2.0.1", "fd00:1::1", "fd00:2::1")
REMOTES = (
    Announced("10.1.0.3"),
    Announced("10.2.0.2"),
    Announced("10.2.0.3", 5001),
    Announced("fd00:2::2"),
    Announced("fd00:1::3"),
)
SERVERS = (("10.1.0.2", 0), ("::ffff:10.1.0.2", socket.AF_INET6), ("fd00:1::2", 0))
PARAMETERS: dict[str, dict[str, range]] = {
    "ndiffports": {"subflows": range(1, 8)},
    "fullmesh": {"subflows_per_pair": range(1, 4), "max_subflows": range(1, 9)},
    "backup": {},
}


def holds(before: Wanted, after: Wanted) -> bool:
    """Whether all that is there stays wanted: closing, and the flags of what is there, is the service's."""
    return all(
        pair in after and after[pair].subflows >= want.subflows and after[pair].backup == want.backup
        for pair, want in before.items()
    )


@pytest.mark.parametrize("seed", range(40))
def test_generated_sessions(hosts: TwoHosts, load: Load, seed: int) -> None:
    """After each of some events the subflows are those of the pure function; no others were asked for."""
    choose = random.Random(seed)
    for ip, link in (("10.1.0.3/24", "eth1"), ("10.2.0.3/24", "eth2"), ("fd00:1::3/64", "eth1")):
        hosts.server.ip("addr", "add", ip, "dev", link, *(["nodad"] if ":" in ip else []))
    name = choose.choice(["ndiffports", "fullmesh", "fullmesh", "fullmesh", "backup"])
    chosen = policy(name, {key: choose.choice(values) for key, values in PARAMETERS[name].items()})
    server_ip, family = choose.choice(SERVERS)
    pool = [ip + choose.choice(["", "", "!"]) for ip in choose.sample(LOCALS, len(LOCALS))]
    topology = Topology(tuple(pool[: choose.randint(1, 4)]), server_ip, family=family)

    program = load(hosts.client, chosen, topology.addresses)
    client, server = hosts.connect(hosts.listen("::"), server_ip, family=family)
    now = wanted(chosen, topology, client)
    settled(hosts, client, now)
    asked = hosts.client.counter("BPFReq")
    known: list[Announced] = []
    for _ in range(8):
        event = choose.choice(REMOTES)
        remotes = [r for r in known if r != event] if event in known else [*known, event]
        grown = topology._replace(locals=tuple(pool[: len(topology.locals) + choose.randint(0, 1)]))
        left = {p: w for p, w in now.items() if event not in known or p.remote != event.ip}
        after = wanted(chosen, grown, client, remotes)
        if not holds(left, after):
            continue
        program.configure(chosen, grown.addresses)
        number = str(REMOTES.index(event) + 1)
        if event in known:
            hosts.server.mptcp("endpoint", "delete", "id", number)
        else:
            announce(hosts.server, [event], first=REMOTES.index(event) + 1)
        expected = count(after)
        wait_equal(lambda: pairs(hosts.client), expected)
        asked += (expected - count(left)).total()
        known, topology, now = remotes, grown, after
    exchange(client, server)
    assert hosts.client.counter("BPFReq") == asked
