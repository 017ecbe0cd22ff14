# SPDX-License-Identifier: GPL-2.0-only
"""The programs in bpf_pm/path_managers open what the pure functions of the same name want.

Only the kernel and the programs are at work: no service runs.
"""

from __future__ import annotations

import random
import socket
from collections import Counter
from functools import partial

import pytest

from pm.model import Pair, Role, Wanted
from tests.kernel.lab import CGROUPS, Host, Lab, exchange, run, wait_for
from tests.kernel.path_managers import (
    Announced,
    Load,
    Program,
    Topology,
    accept_joins,
    announce,
    count,
    has,
    local_address,
    pairs,
    settled,
    wanted,
)
from tests.unit.builders import policy


def gone(program: Program) -> bool:
    return program.sessions() == 0


def requested(host: Host, number: int) -> bool:
    return host.counter("BPFReq") == number


@pytest.fixture(autouse=True)
def joins_accepted(lab: Lab) -> None:
    """The server's own path manager takes what the client opens; the client has a third address."""
    accept_joins(lab)


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
def test_ndiffports(lab: Lab, load: Load, name: str, subflows: int) -> None:
    """ndiffports opens its number of subflows between the initial addresses."""
    topology = TOPOLOGIES[name]
    chosen = policy("ndiffports", {"subflows": subflows})
    load(lab.client, chosen)
    client, _ = lab.connect(lab.listen("::"), topology.server, family=topology.family)
    settled(lab, client, wanted(chosen, topology, client))


@pytest.mark.parametrize(("per_pair", "most"), [(1, 8), (1, 3), (1, 1), (2, 8), (3, 4)], ids=lambda n: str(n))
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_fullmesh(lab: Lab, load: Load, name: str, per_pair: int, most: int) -> None:
    """fullmesh opens every pair of one family, by round, up to its cap."""
    topology = TOPOLOGIES[name]
    if per_pair > 1 and len(topology.locals) * (1 + len(topology.announced)) * per_pair > most:
        # Further rounds that used up the cap before an announcement are the service's to mend.
        topology = topology._replace(announced=())
    announce(lab.server, topology.announced)
    chosen = policy("fullmesh", {"subflows_per_pair": per_pair, "max_subflows": most})
    load(lab.client, chosen, topology.addresses)
    client, _ = lab.connect(lab.listen("::"), topology.server, family=topology.family)
    settled(lab, client, wanted(chosen, topology, client, topology.announced))


def test_fullmesh_follows_announcements(lab: Lab, load: Load) -> None:
    """An address that is announced later gets its subflows, a withdrawn one is forgotten."""
    load(lab.client, FULLMESH, TWO.addresses)
    client, server = lab.connect(lab.listen("::"))
    remotes = (Announced("10.2.0.2"),)
    settled(lab, client, wanted(FULLMESH, TWO, client))
    announce(lab.server, remotes)
    settled(lab, client, wanted(FULLMESH, TWO, client, remotes))
    lab.server.mptcp("endpoint", "delete", "id", "1")
    wait_for("withdrawal", lambda: pairs(lab.client) == count(wanted(FULLMESH, TWO, client)))
    announce(lab.server, remotes)
    wait_for("return", lambda: pairs(lab.client) == count(wanted(FULLMESH, TWO, client, remotes)))
    exchange(client, server)


def test_maps_change_under_the_program(lab: Lab, load: Load) -> None:
    """Parameters and addresses written later count for new sessions, for old ones in the next callback."""
    program = load(lab.client, FULLMESH, ONE.addresses)
    listener = lab.listen("::")
    client, _ = lab.connect(listener)
    settled(lab, client, wanted(FULLMESH, ONE, client))
    capped = policy("fullmesh", {"subflows_per_pair": 2, "max_subflows": 3})
    program.configure(capped, TWO.addresses)
    second, _ = lab.connect(listener)
    expected = count(wanted(FULLMESH, ONE, client)) + count(wanted(capped, TWO, second))
    wait_for("the second session", lambda: pairs(lab.client) == expected)
    program.configure(FULLMESH, TWO.addresses)
    remotes = (Announced("10.2.0.2"),)
    announce(lab.server, remotes)
    first = count(wanted(FULLMESH, TWO, client, remotes))
    surplus = expected - count(wanted(FULLMESH, ONE, client)) - first  # stays open
    wait_for("both sessions", lambda: pairs(lab.client) == first + first + surplus)


def test_server_opens_nothing_to_an_ephemeral_port(lab: Lab, load: Load) -> None:
    """On the server both claim, and open nothing to a client that announced no port."""
    lab.client.mptcp("limits", "set", "subflows", "0", "add_addr_accepted", "0")
    listener = lab.listen("::")
    for name, parameters in (("ndiffports", {"subflows": 4}), ("fullmesh", {"subflows_per_pair": 2})):
        program = load(lab.server, policy(name, parameters), [local_address("10.1.0.2")])
        for end in lab.connect(listener):
            end.close()
        wait_for("close", partial(gone, program))
        program.close()
    assert lab.server.counter("BPFClaimed") == 2
    assert lab.server.counter("BPFReq") == 0


@pytest.mark.parametrize("name", ["ndiffports", "fullmesh"])
def test_hundred_sessions(lab: Lab, load: Load, name: str) -> None:
    """A hundred sessions at once all get their subflows, and leave nothing in the map."""
    chosen = policy(name, {"subflows": 3} if name == "ndiffports" else {})
    program = load(lab.client, chosen, THREE.addresses)
    listener = lab.listen("::")
    ends = [lab.connect(listener) for _ in range(100)]
    one = wanted(chosen, THREE, ends[0][0])
    expected = Counter({pair: 100 * want.subflows for pair, want in one.items()})
    assert lab.client.counter("BPFClaimed") == 100
    wait_for("subflows", lambda: pairs(lab.client) == expected, 30.0)
    assert program.sessions() == 100
    for client, server in ends:
        client.close()
        server.close()
    wait_for("closes", lambda: program.sessions() == 0, 10.0)


def test_sessions_outside_keep_the_kernel_path_manager(lab: Lab, load: Load) -> None:
    """Outside of the cgroup the namespace's endpoints work as ever, inside they are not used."""
    lab.client.mptcp("limits", "set", "subflows", "2")
    lab.client.mptcp("endpoint", "add", "10.2.0.1", "dev", "eth2", "subflow")
    load(lab.client, NDIFFPORTS)
    listener = lab.listen("::")
    with lab.client.inside():
        (CGROUPS / "cgroup.procs").write_text("0")
        outside = lab.keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262))
    outside.connect(("10.1.0.2", 5000))
    exchange(outside, lab.keep(listener.accept()[0]))
    initial, other = Pair("10.1.0.1", "10.1.0.2", 5000), Pair("10.2.0.1", "10.1.0.2", 5000)
    wait_for("the endpoint's subflow", lambda: pairs(lab.client) == Counter({initial: 1, other: 1}))
    lab.connect(listener)
    wait_for("the program's subflow", lambda: pairs(lab.client) == Counter({initial: 3, other: 1}))
    assert lab.client.counter("BPFClaimed") == 1


def test_innermost_cgroup_wins(lab: Lab, load: Load) -> None:
    """Of two programs on the way to the root, the inner one has the session, alone."""
    program = load(lab.client, FULLMESH, THREE.addresses)
    outer = lab.client.cgroup
    lab.client.cgroup = outer / "inner"
    lab.client.cgroup.mkdir()
    try:
        inner = load(lab.client, NDIFFPORTS)
        client, server = lab.connect(lab.listen("::"))
        settled(lab, client, wanted(NDIFFPORTS, TWO, client))
        assert (inner.sessions(), program.sessions()) == (1, 0)
        inner.close()
        client.close()
        server.close()
    finally:
        lab.client.cgroup.rmdir()
        lab.client.cgroup = outer


def test_failed_subflow_is_tried_again_a_few_times(lab: Lab, load: Load) -> None:
    """Subflows that the server resets are opened again three times, not for ever."""
    lab.server.mptcp("limits", "set", "subflows", "0")
    for chosen in (NDIFFPORTS, FULLMESH):
        before = lab.client.counter("BPFReq")
        program = load(lab.client, chosen, TWO.addresses)
        client, server = lab.connect(lab.listen("10.1.0.2", 5000 + before))
        wait_for("attempts", partial(requested, lab.client, before + 4))
        wait_for("the end of the last", lambda: len(lab.client.subflows()) == 1)
        exchange(client, server)
        assert lab.client.counter("BPFReq") - before == 4
        for end in (client, server):
            end.close()
        wait_for("close", partial(gone, program))
        program.close()


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_backup(lab: Lab, load: Load, name: str) -> None:
    """backup opens its one standby, over another interface, with the backup flag."""
    topology = TOPOLOGIES[name]
    announce(lab.server, topology.announced)
    load(lab.client, BACKUP, topology.addresses)
    client, _ = lab.connect(lab.listen("::"), topology.server, family=topology.family)
    settled(lab, client, wanted(BACKUP, topology, client, topology.announced))


def test_backup_is_promoted(lab: Lab, load: Load) -> None:
    """When the primary is reset the standby loses its flag, and gets it back with a new primary."""
    load(lab.client, BACKUP, TWO.addresses)
    client, server = lab.connect(lab.listen("::"))
    expected = wanted(BACKUP, TWO, client)
    settled(lab, client, expected)
    exchange(client, server)
    with lab.client.inside():
        run("ss", "-K", "src", "10.1.0.1", "dport", "=", "5000")
    wait_for("promotion and return", lambda: lab.server.counter("MPPrioRx") == 2)
    wait_for("both", lambda: pairs(lab.client) == count(expected))
    exchange(client, server)


def test_server_opens_to_an_announced_port(lab: Lab, load: Load) -> None:
    """A client that announces an address with a port is joined there, from each of the server's."""
    lab.client.mptcp("limits", "set", "subflows", "8")
    topology = Topology(("10.1.0.2", "10.2.0.2", "fd00:2::2"))
    remotes = (Announced("10.2.0.1", 5555),)
    load(lab.server, FULLMESH, topology.addresses)
    client, server = lab.connect(lab.listen("::"))
    expected = count(wanted(FULLMESH, topology, server, role=Role.SERVER))
    assert pairs(lab.server) == expected
    announce(lab.client, remotes)
    expected = count(wanted(FULLMESH, topology, server, remotes, role=Role.SERVER))
    wait_for("joins to the client", lambda: pairs(lab.server) == expected)
    exchange(client, server)
    assert lab.server.counter("BPFReq") == 2


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
def test_generated_sessions(lab: Lab, load: Load, seed: int) -> None:
    """After each of some events the subflows are those of the pure function; no others were asked for."""
    choose = random.Random(seed)
    for ip, link in (("10.1.0.3/24", "eth1"), ("10.2.0.3/24", "eth2"), ("fd00:1::3/64", "eth1")):
        lab.server.ip("addr", "add", ip, "dev", link, *(["nodad"] if ":" in ip else []))
    name = choose.choice(["ndiffports", "fullmesh", "fullmesh", "fullmesh", "backup"])
    chosen = policy(name, {key: choose.choice(values) for key, values in PARAMETERS[name].items()})
    server_ip, family = choose.choice(SERVERS)
    pool = [ip + choose.choice(["", "", "!"]) for ip in choose.sample(LOCALS, len(LOCALS))]
    topology = Topology(tuple(pool[: choose.randint(1, 4)]), server_ip, family=family)

    program = load(lab.client, chosen, topology.addresses)
    client, server = lab.connect(lab.listen("::"), server_ip, family=family)
    now = wanted(chosen, topology, client)
    settled(lab, client, now)
    asked = lab.client.counter("BPFReq")
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
            lab.server.mptcp("endpoint", "delete", "id", number)
        else:
            announce(lab.server, [event], first=REMOTES.index(event) + 1)
        expected = count(after)
        wait_for(f"subflows after {event}", partial(has, lab.client, expected))
        asked += (expected - count(left)).total()
        known, topology, now = remotes, grown, after
    exchange(client, server)
    assert lab.client.counter("BPFReq") == asked
