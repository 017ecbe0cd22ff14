# SPDX-License-Identifier: GPL-2.0-only
"""The programs in bpf_pm/path_managers open what the pure functions of the same name want.

Only the kernel and the programs are at work: no service runs.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import pytest

from pm.history import History
from pm.linux import bpf
from pm.linux.attachments import netns_cookie
from pm.linux.bpf_object import BpfObject, compile_object
from pm.linux.layouts import NETNS_COOKIE_PLACEHOLDER, POLICY_ID_PLACEHOLDER
from pm.linux.path_programs import LOCALS, SOURCE, compiler_flags, local_entry
from pm.model import LocalAddress, Origin, Pair, RemoteAddress, Role, Session, Subflow, SubflowState, Wanted
from pm.path_managers import registry
from tests.kernel.lab import CGROUPS, Host, Lab, exchange, run, wait_for

POLICY = 0x1122334455667788
LOG = Path("/dev/stderr")
PARAMETERS = struct.Struct("=QQII8I")  # struct path_parameters
Pairs = Counter[Pair]


@cache
def compiled() -> BpfObject:
    return asyncio.run(compile_object(SOURCE, log_file=LOG, cflags=compiler_flags([])))


class Program:
    """A path manager's program, loaded for one host's namespace; closing it detaches it."""

    def __init__(
        self, host: Host, name: str, parameters: Sequence[int] = (), *, locals_: Sequence[LocalAddress] = ()
    ) -> None:
        program = compiled()
        self.maps = {n: bpf.create_map(n, spec) for n, (_, spec) in program.maps.items()}
        self.configure(parameters, locals_)
        with host.inside():
            constants = {NETNS_COOKIE_PLACEHOLDER: netns_cookie(), POLICY_ID_PLACEHOLDER: POLICY}
        self._program = program.load(
            f"path_manager_{name}", maps=self.maps, constants=constants, log_file=LOG
        )
        directory = os.open(host.cgroup, os.O_RDONLY)
        self._link = bpf.link_cgroup(self._program, directory)
        os.close(directory)

    def configure(self, parameters: Sequence[int], locals_: Sequence[LocalAddress] = ()) -> None:
        values = [*parameters, *[0] * (8 - len(parameters))]
        bpf.update(
            self.maps["path_parameters"], struct.pack("=Q", POLICY), PARAMETERS.pack(0, 0, 0, 0, *values)
        )
        for slot in range(LOCALS):
            value = (
                local_entry(locals_[slot].ip, slot + 1, locals_[slot]) if slot < len(locals_) else bytes(40)
            )
            bpf.update(self.maps["local_addr_map"], struct.pack("=I", slot), value)

    def sessions(self) -> int:
        return len(list(bpf.keys(self.maps["claims"], 4)))

    def close(self) -> None:
        for fd in (self._link, self._program, *self.maps.values()):
            os.close(fd)


def local_address(ip: str, *, backup: bool = False) -> LocalAddress:
    """Of the client, where link N has addresses 10.N... and fd00:N..."""
    link = int(re.split("[.:]+", ip)[1])
    return LocalAddress(ip, 24, link + 1, f"eth{link}", True, backup, "")


class Announced(NamedTuple):
    ip: str
    port: int = 0


class Topology(NamedTuple):
    locals: tuple[str, ...]  # a "!" at the end: backup
    server: str = "10.1.0.2"
    announced: tuple[Announced, ...] = ()
    family: int = 0

    @property
    def addresses(self) -> list[LocalAddress]:
        return [local_address(ip.rstrip("!"), backup=ip.endswith("!")) for ip in self.locals]


def v4(ip: str) -> str:
    return ip.removeprefix("::ffff:")


def wanted(
    name: str,
    topology: Topology,
    client: socket.socket,
    remotes: Sequence[Announced],
    **parameters: int,
) -> Wanted:
    """What the pure function says of the session of ``client``."""
    (local, local_port), (remote, remote_port) = client.getsockname()[:2], client.getpeername()[:2]
    session = Session(
        token=1,
        number=1,
        role=Role.CLIENT,
        socket_family=6 if client.family == socket.AF_INET6 else 4,
        local=v4(local),
        local_port=local_port,
        remote=v4(remote),
        remote_port=remote_port,
        created=0.0,
        history=History(),
        subflows=[
            Subflow(v4(local), local_port, v4(remote), remote_port, Origin.INITIAL, SubflowState.ESTABLISHED)
        ],
        remotes=tuple(RemoteAddress(a.ip, a.port, i) for i, a in enumerate(remotes, 1)),
    )
    usable = [a for a in topology.addresses if session.socket_family == 6 or a.family == 4]
    manager = registry()[name]
    result: Wanted = manager.wanted(session, usable, manager.Parameters(**parameters))
    return result


def initial_pair(client: socket.socket) -> Pair:
    return Pair(v4(client.getsockname()[0]), v4(client.getpeername()[0]), client.getpeername()[1])


def count(result: Wanted) -> Pairs:
    return Counter({pair: want.subflows for pair, want in result.items()})


def pairs(host: Host) -> Pairs:
    """The established subflows of a host."""

    def split(text: str) -> tuple[str, int]:
        ip, port = text.rsplit(":", 1)
        return v4(ip.split("%")[0].strip("[]")), int(port)

    return Counter(Pair(split(local)[0], *split(remote)) for local, remote in host.subflows())


def gone(program: Program) -> bool:
    return program.sessions() == 0


def requested(host: Host, number: int) -> bool:
    return host.counter("BPFReq") == number


def settled(lab: Lab, client: socket.socket, result: Wanted) -> None:
    """The client has the subflows, with their backup flags, and asked the kernel for no others."""
    expected = count(result)
    try:
        wait_for("wanted subflows", lambda: pairs(lab.client) == expected)
    except AssertionError:
        assert pairs(lab.client) == expected
        raise
    opened = expected - Counter([initial_pair(client)])
    initial_changed = result[initial_pair(client)].backup
    assert lab.client.counter("BPFReq") == opened.total() + initial_changed
    assert lab.client.counter("BPFReqRefused") == lab.client.counter("BPFReqFailed") == 0
    assert lab.server.counter("MPJoinSynBackupRx") == sum(n for p, n in opened.items() if result[p].backup)
    wait_for("flag of the initial subflow", lambda: lab.server.counter("MPPrioRx") == initial_changed)


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    opened: list[Program] = []
    yield opened
    for program in opened:
        program.close()


@pytest.fixture(autouse=True)
def joins_accepted(lab: Lab) -> None:
    """The server's own path manager takes what the client opens; the client has a third address."""
    lab.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    lab.client.ip("addr", "add", "10.1.0.9/24", "dev", "eth1")


def announce(lab: Lab, announced: Sequence[Announced]) -> None:
    for number, a in enumerate(announced, 1):
        port = ("port", str(a.port)) if a.port else ()
        lab.server.mptcp("endpoint", "add", a.ip, "id", str(number), "signal", *port)


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
def test_ndiffports(lab: Lab, programs: list[Program], name: str, subflows: int) -> None:
    """ndiffports opens its number of subflows between the initial addresses."""
    topology = TOPOLOGIES[name]
    programs.append(Program(lab.client, "ndiffports", [subflows]))
    client, _ = lab.connect(lab.listen("::"), topology.server, family=topology.family)
    settled(lab, client, wanted("ndiffports", topology, client, (), subflows=subflows))


@pytest.mark.parametrize(("per_pair", "most"), [(1, 8), (1, 3), (1, 1), (2, 8), (3, 4)], ids=lambda n: str(n))
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_fullmesh(lab: Lab, programs: list[Program], name: str, per_pair: int, most: int) -> None:
    """fullmesh opens every pair of one family, by round, up to its cap."""
    topology = TOPOLOGIES[name]
    if per_pair > 1 and len(topology.locals) * (1 + len(topology.announced)) * per_pair > most:
        # Further rounds that used up the cap before an announcement are the service's to mend.
        topology = topology._replace(announced=())
    announce(lab, topology.announced)
    programs.append(Program(lab.client, "fullmesh", [per_pair, most], locals_=topology.addresses))
    client, _ = lab.connect(lab.listen("::"), topology.server, family=topology.family)
    settled(
        lab,
        client,
        wanted(
            "fullmesh", topology, client, topology.announced, subflows_per_pair=per_pair, max_subflows=most
        ),
    )


def test_fullmesh_follows_announcements(lab: Lab, programs: list[Program]) -> None:
    """An address that is announced later gets its subflows, a withdrawn one is forgotten."""
    programs.append(Program(lab.client, "fullmesh", [1, 8], locals_=TWO.addresses))
    client, server = lab.connect(lab.listen("::"))
    remotes = (Announced("10.2.0.2"),)
    settled(lab, client, wanted("fullmesh", TWO, client, ()))
    announce(lab, remotes)
    settled(lab, client, wanted("fullmesh", TWO, client, remotes))
    lab.server.mptcp("endpoint", "delete", "id", "1")
    wait_for("withdrawal", lambda: pairs(lab.client) == count(wanted("fullmesh", TWO, client, ())))
    announce(lab, remotes)
    wait_for("return", lambda: pairs(lab.client) == count(wanted("fullmesh", TWO, client, remotes)))
    exchange(client, server)


def test_maps_change_under_the_program(lab: Lab, programs: list[Program]) -> None:
    """Parameters and addresses written later count for new sessions, for old ones in the next callback."""
    program = Program(lab.client, "fullmesh", [1, 8], locals_=ONE.addresses)
    programs.append(program)
    listener = lab.listen("::")
    client, _ = lab.connect(listener)
    settled(lab, client, wanted("fullmesh", ONE, client, ()))
    program.configure([2, 3], TWO.addresses)
    second, _ = lab.connect(listener)
    capped = {"subflows_per_pair": 2, "max_subflows": 3}
    expected = count(wanted("fullmesh", ONE, client, ())) + count(
        wanted("fullmesh", TWO, second, (), **capped)
    )
    wait_for("the second session", lambda: pairs(lab.client) == expected)
    program.configure([1, 8], TWO.addresses)
    remotes = (Announced("10.2.0.2"),)
    announce(lab, remotes)
    first = count(wanted("fullmesh", TWO, client, remotes))
    surplus = expected - count(wanted("fullmesh", ONE, client, ())) - first  # stays open
    wait_for("both sessions", lambda: pairs(lab.client) == first + first + surplus)


def test_server_opens_nothing_to_an_ephemeral_port(lab: Lab, programs: list[Program]) -> None:
    """On the server both claim, and open nothing to a client that announced no port."""
    lab.client.mptcp("limits", "set", "subflows", "0", "add_addr_accepted", "0")
    listener = lab.listen("::")
    for name, parameters in (("ndiffports", [4]), ("fullmesh", [2, 8])):
        program = Program(lab.server, name, parameters, locals_=[local_address("10.1.0.2")])
        for end in lab.connect(listener):
            end.close()
        wait_for("close", partial(gone, program))
        program.close()
    assert lab.server.counter("BPFClaimed") == 2
    assert lab.server.counter("BPFReq") == 0


@pytest.mark.parametrize(("name", "parameters"), [("ndiffports", [3]), ("fullmesh", [1, 8])])
def test_hundred_sessions(lab: Lab, programs: list[Program], name: str, parameters: list[int]) -> None:
    """A hundred sessions at once all get their subflows, and leave nothing in the map."""
    program = Program(lab.client, name, parameters, locals_=THREE.addresses)
    programs.append(program)
    listener = lab.listen("::")
    ends = [lab.connect(listener) for _ in range(100)]
    keywords = {"subflows": 3} if name == "ndiffports" else {}
    one = wanted(name, THREE, ends[0][0], (), **keywords)
    expected = Counter({pair: 100 * want.subflows for pair, want in one.items()})
    assert lab.client.counter("BPFClaimed") == 100
    wait_for("subflows", lambda: pairs(lab.client) == expected, 30.0)
    assert program.sessions() == 100
    for client, server in ends:
        client.close()
        server.close()
    wait_for("closes", lambda: program.sessions() == 0, 10.0)


def test_sessions_outside_keep_the_kernel_path_manager(lab: Lab, programs: list[Program]) -> None:
    """Outside of the cgroup the namespace's endpoints work as ever, inside they are not used."""
    lab.client.mptcp("limits", "set", "subflows", "2")
    lab.client.mptcp("endpoint", "add", "10.2.0.1", "dev", "eth2", "subflow")
    programs.append(Program(lab.client, "ndiffports", [2]))
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


def test_innermost_cgroup_wins(lab: Lab, programs: list[Program]) -> None:
    """Of two programs on the way to the root, the inner one has the session, alone."""
    programs.append(Program(lab.client, "fullmesh", [1, 8], locals_=THREE.addresses))
    outer = lab.client.cgroup
    lab.client.cgroup = outer / "inner"
    lab.client.cgroup.mkdir()
    try:
        inner = Program(lab.client, "ndiffports", [2])
        client, server = lab.connect(lab.listen("::"))
        settled(lab, client, wanted("ndiffports", TWO, client, (), subflows=2))
        assert (inner.sessions(), programs[0].sessions()) == (1, 0)
        inner.close()
        client.close()
        server.close()
    finally:
        lab.client.cgroup.rmdir()
        lab.client.cgroup = outer


def test_failed_subflow_is_tried_again_a_few_times(lab: Lab, programs: list[Program]) -> None:
    """Subflows that the server resets are opened again three times, not for ever."""
    lab.server.mptcp("limits", "set", "subflows", "0")
    for name, parameters in (("ndiffports", [2]), ("fullmesh", [1, 8])):
        before = lab.client.counter("BPFReq")
        program = Program(lab.client, name, parameters, locals_=TWO.addresses)
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
def test_backup(lab: Lab, programs: list[Program], name: str) -> None:
    """backup opens its one standby, over another interface, with the backup flag."""
    topology = TOPOLOGIES[name]
    announce(lab, topology.announced)
    programs.append(Program(lab.client, "backup", locals_=topology.addresses))
    client, _ = lab.connect(lab.listen("::"), topology.server, family=topology.family)
    settled(lab, client, wanted("backup", topology, client, topology.announced))


def test_backup_is_promoted(lab: Lab, programs: list[Program]) -> None:
    """When the primary is reset the standby loses its flag, and gets it back with a new primary."""
    programs.append(Program(lab.client, "backup", locals_=TWO.addresses))
    client, server = lab.connect(lab.listen("::"))
    expected = wanted("backup", TWO, client, ())
    settled(lab, client, expected)
    exchange(client, server)
    with lab.client.inside():
        run("ss", "-K", "src", "10.1.0.1", "dport", "=", "5000")
    wait_for("promotion and return", lambda: lab.server.counter("MPPrioRx") == 2)
    wait_for("both", lambda: pairs(lab.client) == count(expected))
    exchange(client, server)
