# SPDX-License-Identifier: Apache-2.0
"""A session has one owner, the link whose program claimed it: who is called, who may act, and who follows."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pm.linux.bpf.path_manager_maps import ClaimCounter
from pm.linux.netlink.mptcp_pm import PathManagerSocket
from pm.policies.model import Accept
from tests.kernel.inside.conftest import at_work
from tests.lab.path_manager_programs import Load, accept_joins
from tests.lab.recorder import CLAIM, REFUSE, Flag, Op, Recorder, address
from tests.lab.sock_ops import SockOpsProgram, attached_without_link
from tests.lab.two_hosts import CGROUPS, Host, TwoHosts, exchange
from tests.lab.waiting import wait_equal, wait_for
from tests.unit.builders import policy

MANY = 1000
TWO = ("10.2.0.1", "10.2.0.2")
"""The second path: from the client, to the server."""


@pytest.fixture
def other(recorders: tuple[Recorder, Recorder]) -> Iterator[Recorder]:
    """A second recorder, attached by the test; it claims whatever it is asked for."""
    recorder = recorders[1]
    recorder.reset()
    recorder.reply(orphan_session=CLAIM)
    yield recorder
    recorder.detach()


def ops(recorder: Recorder) -> list[Op]:
    return [event.op for event in recorder.events()]


def close(recorder: Recorder, *sockets: socket.socket, sessions: int = 1) -> None:
    """Close the ends; the recorder hears of the end of ``sessions`` sessions."""
    before = recorder.count(Op.CLOSE_SESSION)
    for sock in sockets:
        sock.close()
    wait_equal(lambda: recorder.count(Op.CLOSE_SESSION) - before, sessions)


@contextmanager
def cgroup_of(host: Host, cgroup: Path) -> Iterator[None]:
    """What the host makes meanwhile is in another cgroup."""
    former, host.cgroup = host.cgroup, cgroup
    yield
    host.cgroup = former


# Who claims, who is called


def test_claim_without_a_link(hosts: TwoHosts, other: Recorder) -> None:
    """A program that is attached without a link claims nothing; an outer one with a link does."""
    listener = hosts.listen()
    inner = Recorder()
    inner.reply()
    with attached_without_link(inner, hosts.client.cgroup):
        hosts.connect(listener)
        assert ops(inner) == [Op.NEW_SESSION]
        assert hosts.client.counter("BPFClaimed") == 0
        other.attach(CGROUPS)
        other.reply()
        hosts.connect(listener)
    assert ops(inner) == [Op.NEW_SESSION] * 2
    assert hosts.client.counter("BPFClaimed") == 1
    asked = [e.flags & Flag.CLAIMED for e in other.events(Op.NEW_SESSION) if not e.flags & Flag.SERVER]
    assert asked == [0]


@pytest.mark.parametrize("place", ["outer cgroup", "same cgroup"])
@pytest.mark.parametrize("ip", ["10.1.0.2", "fd00:1::2"])
def test_only_the_owner_is_called(
    hosts: TwoHosts, client: Recorder, other: Recorder, ip: str, place: str
) -> None:
    """Of two that claim, the first owns the session; the other hears no more of it than NEW_SESSION."""
    accept_joins(hosts)
    other.attach(CGROUPS if place == "outer cgroup" else hosts.client.cgroup)
    client.act(0, Op.FULLY_ESTABLISHED, "open")
    ends = hosts.connect(hosts.listen(ip), ip)
    wait_equal(lambda: len(hosts.client.subflows()), 2)
    close(client, *ends)
    assert {Op.FULLY_ESTABLISHED, Op.SUBFLOW_ESTABLISHED, Op.CLOSE_SESSION} < set(ops(client))
    token = client.events(Op.NEW_SESSION)[0].tokens[0]
    seen = [e for e in other.events() if e.tokens[0] == token]
    assert [(e.op, e.flags & Flag.CLAIMED) for e in seen] == [(Op.NEW_SESSION, Flag.CLAIMED)]


@pytest.mark.parametrize("place", ["outer cgroup", "inner cgroup", "same cgroup"])
def test_helpers_of_others(hosts: TwoHosts, client: Recorder, place: str) -> None:
    """Who does not own the session may neither open, close, announce, withdraw nor change: EPERM."""
    accept_joins(hosts)
    inner = hosts.client.cgroup / "inner"
    inner.mkdir()
    meddler = SockOpsProgram("meddle")
    meddler.attach({"outer cgroup": CGROUPS, "inner cgroup": inner}.get(place, hosts.client.cgroup))
    client.act(0, Op.FULLY_ESTABLISHED, "open")
    try:
        with cgroup_of(hosts.client, inner):
            ends = hosts.connect(hosts.listen())
        wait_equal(lambda: len(hosts.client.subflows()), 2)
        exchange(*ends, b"y" * 5000)
        refused, others = meddler.integers("answers")
        assert refused >= 5
        assert others == 0
        assert hosts.client.counter("BPFReq") == 1
        assert len(hosts.client.subflows()) == 2
        assert not client.count(Op.SUBFLOW_CLOSED)
        close(client, *ends)
    finally:
        meddler.detach()
        inner.rmdir()


def test_program_that_others_override(hosts: TwoHosts, client: Recorder, other: Recorder) -> None:
    """An outer program attached with BPF_F_ALLOW_OVERRIDE yields to the owner, and is not asked."""
    client.detach()
    with attached_without_link(other, CGROUPS, override=True):
        client.attach(hosts.client.cgroup)
        ends = hosts.connect(hosts.listen())
        close(client, *ends)
    token = client.events(Op.NEW_SESSION)[0].tokens[0]
    assert not [e for e in other.events() if e.tokens[0] == token]
    assert hosts.client.counter("BPFClaimed") == 1


# Joins that a socket of another cgroup accepts


@pytest.mark.parametrize("refuse", [False, True], ids=["accepted", "refused"])
@pytest.mark.parametrize("path", [TWO, ("fd00:2::1", "fd00:2::2")], ids=["IPv4", "IPv6"])
def test_join_on_a_listener_of_another_cgroup(
    hosts: TwoHosts, client: Recorder, other: Recorder, path: tuple[str, str], refuse: bool
) -> None:
    """The owner is asked, and called, not the programs of the cgroup whose listener has the SYN."""
    accept_joins(hosts)
    source, destination = path
    initial = destination.replace("2", "1", 1)
    elsewhere = CGROUPS / "elsewhere"
    elsewhere.mkdir()
    server = Recorder()
    server.reply(join_request=REFUSE if refuse else 0)
    server.attach(hosts.server.cgroup)
    other.attach(elsewhere)
    try:
        with cgroup_of(hosts.server, elsewhere):
            hosts.listen(destination)
        client.act(0, Op.FULLY_ESTABLISHED, "open", address(source), address(destination))
        ends = hosts.connect(hosts.listen(initial), initial)
        wait_equal(lambda: server.count(Op.JOIN_REQUEST), 1)
        wait_equal(lambda: hosts.server.counter("BPFJoinRefused"), int(refuse))
        exchange(*ends, b"y" * 5000)
        wait_equal(lambda: server.count(Op.SUBFLOW_ESTABLISHED), 1 - refuse)
        close(server, *ends)
        assert not other.events()
    finally:
        server.detach()
        other.detach()
        elsewhere.rmdir()


def test_accept_rule_for_a_listener_of_another_cgroup(hosts: TwoHosts, load: Load, client: Recorder) -> None:
    """The shipped programs' `accept` rule holds there, too."""
    accept_joins(hosts)
    program = load(hosts.server, policy("none", accept=Accept(max_subflows=1)))
    with cgroup_of(hosts.server, CGROUPS):
        hosts.listen("10.2.0.2")
    client.act(0, Op.FULLY_ESTABLISHED, "open", *map(address, TWO))
    hosts.connect(hosts.listen())
    wait_equal(lambda: hosts.server.counter("BPFJoinRefused"), 1)
    assert program.count(ClaimCounter.JOINS_REFUSED) == 1
    assert len(hosts.server.subflows()) == 1


# Replaced and detached owners


def test_replaced_program_carries_on(hosts: TwoHosts, client: Recorder, other: Recorder) -> None:
    """The link stays, so its new program has the callbacks and the helpers of the living sessions."""
    accept_joins(hosts)
    ends = hosts.connect(hosts.listen())
    client.replace(hosts.client.cgroup, other)
    other.act(0, Op.SUBFLOW_ESTABLISHED, "close")
    with hosts.client.inside(), PathManagerSocket.open() as genl:
        token = client.events(Op.NEW_SESSION)[0].tokens[0]
        genl.create_subflow(token, genl.prepare_subflow("10.2.0.1", 1, "10.1.0.2", 5000, backup=False))
    wait_equal(lambda: other.count(Op.SUBFLOW_CLOSED), 1)
    assert other.events(Op.SUBFLOW_ESTABLISHED)[0].results[0] == 0
    close(other, *ends)
    assert not other.count(Op.ORPHAN_SESSION)
    assert Op.CLOSE_SESSION not in ops(client)


def test_orphan_is_left_alone(hosts: TwoHosts, client: Recorder, other: Recorder) -> None:
    """A program that does not take the orphan gets no other callback, and is asked once per change."""
    accept_joins(hosts)
    ends = hosts.connect(hosts.listen())
    token = client.events(Op.NEW_SESSION)[0].tokens[0]
    client.detach()
    exchange(*ends)
    other.reply(orphan_session=0)
    other.act(0, Op.ORPHAN_SESSION, "open")
    other.attach(hosts.client.cgroup)
    for _ in range(5):
        exchange(*ends)
    (asked,) = other.events()
    assert (asked.op, asked.tokens[0], asked.flags & Flag.CLAIMED) == (Op.ORPHAN_SESSION, token, 0)
    assert asked.results[0] < 0, "it does not own the session yet"
    with hosts.client.inside(), PathManagerSocket.open() as genl:
        genl.create_subflow(token, genl.prepare_subflow("10.2.0.1", 1, "10.1.0.2", 5000, backup=False))
    wait_equal(lambda: len(hosts.client.subflows()), 2)
    other.replace(hosts.client.cgroup, other)
    exchange(*ends)
    for end in ends:
        end.close()
    wait_equal(lambda: len(hosts.client.subflows()), 0)
    assert ops(other) == [Op.ORPHAN_SESSION] * 2


@pytest.mark.parametrize("place", ["outer cgroup", "same cgroup"])
def test_orphan_finds_another_owner(hosts: TwoHosts, client: Recorder, other: Recorder, place: str) -> None:
    """With the owner's link gone, a program that is there is offered the session at the next packet."""
    accept_joins(hosts)
    other.attach(CGROUPS if place == "outer cgroup" else hosts.client.cgroup)
    other.reply(new_session=0, orphan_session=CLAIM)
    other.act(0, Op.SUBFLOW_ESTABLISHED, "close")
    ends = hosts.connect(hosts.listen())
    assert not other.count(Op.ORPHAN_SESSION)
    client.detach()
    exchange(*ends)
    wait_equal(lambda: other.count(Op.ORPHAN_SESSION), 1)
    with hosts.client.inside(), PathManagerSocket.open() as genl:
        token = client.events(Op.NEW_SESSION)[0].tokens[0]
        genl.create_subflow(token, genl.prepare_subflow("10.2.0.1", 1, "10.1.0.2", 5000, backup=False))
    wait_equal(lambda: other.count(Op.SUBFLOW_CLOSED), 1)
    assert other.events(Op.SUBFLOW_ESTABLISHED)[0].results[0] == 0
    close(other, *ends)
    assert other.count(Op.ORPHAN_SESSION) == 1


def test_first_of_two_takes_the_orphan(hosts: TwoHosts, client: Recorder, other: Recorder) -> None:
    """Both are asked, and the second sees that the first took it."""
    outer = Recorder()
    outer.reply(new_session=0, orphan_session=CLAIM)
    outer.attach(CGROUPS)
    other.attach(hosts.client.cgroup)
    ends = hosts.connect(hosts.listen())
    client.detach()
    exchange(*ends)
    close(other, *ends)
    assert [e.flags & Flag.CLAIMED for e in other.events(Op.ORPHAN_SESSION)] == [0]
    assert [e.flags & Flag.CLAIMED for e in outer.events(Op.ORPHAN_SESSION)] == [Flag.CLAIMED]
    outer.detach()


def test_shipped_program_takes_its_sessions_back(hosts: TwoHosts, load: Load) -> None:
    """Attached again by another link, it goes on with the sessions in its map, and lets no subflow in."""
    accept_joins(hosts)
    program = load(hosts.server, policy("none", accept=Accept(max_subflows=1)))
    client = at_work(Recorder(), hosts.client)
    ends = hosts.connect(hosts.listen())
    program.reattach()
    exchange(*ends)
    token = client.events(Op.NEW_SESSION)[0].tokens[0]
    with hosts.client.inside(), PathManagerSocket.open() as genl:
        genl.create_subflow(token, genl.prepare_subflow("10.2.0.1", 1, "10.1.0.2", 5000, backup=False))
    wait_equal(lambda: hosts.server.counter("BPFJoinRefused"), 1)
    assert program.sessions() == 1
    for end in ends:
        end.close()
    wait_equal(program.sessions, 0)
    client.detach()


def test_cgroup_removed_under_its_sessions(hosts: TwoHosts, client: Recorder, other: Recorder) -> None:
    """The directory is gone, the sessions live: their owner is called, also once it was replaced."""
    accept_joins(hosts)
    ends = hosts.connect(hosts.listen())
    second = hosts.connect(hosts.listen("10.1.0.2", 5001))
    hosts.client.cgroup.rmdir()
    close(client, *ends)
    client.replace(hosts.client.cgroup, other)
    close(other, *second)
    assert not other.count(Op.ORPHAN_SESSION)
    hosts.client.cgroup.mkdir()


# Many sessions


@pytest.fixture
def many(hosts: TwoHosts, client: Recorder) -> list[tuple[socket.socket, socket.socket]]:
    """MANY living sessions that the client's recorder owns, and some connections that are plain TCP.

    The kernel's table of tokens has few places where there is little memory.
    """
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 5 * MANY), max(limits[1], 5 * MANY)))
    listener = hosts.listen()
    ends: list[tuple[socket.socket, socket.socket]] = []
    while client.count(Op.NEW_SESSION) < MANY and len(ends) < 2 * MANY:
        ends.append(hosts.connect(listener))
    return ends


def talk(sessions: list[tuple[socket.socket, socket.socket]]) -> None:
    for ends in sessions:
        exchange(*ends)


def test_replaced_under_many_sessions(
    hosts: TwoHosts, client: Recorder, other: Recorder, many: list[tuple[socket.socket, socket.socket]]
) -> None:
    """The program changes again and again while they talk and end: one of the two hears of each end."""
    done = threading.Event()
    programs = [other, client]

    def replace() -> None:
        while not done.is_set():
            client.replace(hosts.client.cgroup, programs[0])
            programs.reverse()

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        talk(many)
        for ends in many:
            for end in ends:
                end.close()
        wait_equal(lambda: client.count(Op.CLOSE_SESSION) + other.count(Op.CLOSE_SESSION), MANY)
    finally:
        done.set()
        thread.join()
    assert client.count(Op.NEW_SESSION) == MANY
    assert client.count(Op.ORPHAN_SESSION) + other.count(Op.ORPHAN_SESSION) == 0


def test_detached_under_many_sessions(
    hosts: TwoHosts, client: Recorder, other: Recorder, many: list[tuple[socket.socket, socket.socket]]
) -> None:
    """Owners go while the sessions talk: the last one has them all, and hears of each end once."""
    for _ in range(3):
        client.reply(orphan_session=CLAIM)
        for recorder, next_ in ((client, other), (other, client)):
            before = next_.count(Op.ORPHAN_SESSION)
            thread = threading.Thread(target=talk, args=(many,))
            thread.start()
            recorder.detach()
            next_.attach(hosts.client.cgroup)
            thread.join()
            talk(many)
            assert next_.count(Op.ORPHAN_SESSION) - before == MANY
    for ends in many:
        for end in ends:
            end.close()
    wait_equal(lambda: client.count(Op.CLOSE_SESSION), MANY)
    assert not other.count(Op.CLOSE_SESSION)


def test_detached_for_good_under_many_sessions(
    hosts: TwoHosts, client: Recorder, many: list[tuple[socket.socket, socket.socket]]
) -> None:
    """Nobody follows the owner: the sessions go on, end, and nothing is left."""
    thread = threading.Thread(target=talk, args=(many,))
    thread.start()
    client.detach()
    thread.join()
    assert len(hosts.client.subflows()) == MANY
    for ends in many:
        for end in ends:
            end.close()
    wait_for(lambda: not hosts.client.subflows(), "no subflow")
    assert not client.count(Op.CLOSE_SESSION)
