# SPDX-License-Identifier: Apache-2.0
"""Several programs on the way to the root: the first claim stands, and the owner's refusal."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pm.linux.bpf.path_manager_maps import ClaimCounter
from pm.model import Pair
from pm.policies.model import Accept
from tests.lab.path_manager_programs import Load, accept_joins, local_address, pairs
from tests.lab.recorder import CLAIM, REFUSE, Flag, Op, Recorder
from tests.lab.sock_ops import SockOpsProgram
from tests.lab.two_hosts import CGROUPS, TwoHosts, exchange
from tests.lab.waiting import wait_equal
from tests.unit.builders import policy

TWO = [local_address("10.1.0.1"), local_address("10.2.0.1")]
ANSWERS = {"-1": (-1, 1), "0": (0, 1), "-1, returns 0": (-1, 0), "1, returns 0": (1, 0)}
"""(reply, return value); the kernel's samples reply -1 to what they do not know."""


@contextmanager
def attached(program: SockOpsProgram, cgroup: Path) -> Iterator[None]:
    program.attach(cgroup)
    yield
    program.detach(cgroup)


@pytest.fixture(params=list(ANSWERS.values()), ids=list(ANSWERS))
def unconcerned(request: pytest.FixtureRequest) -> SockOpsProgram:
    """A program that replies the same to everything."""
    program = SockOpsProgram("unconcerned")
    for index, value in enumerate(request.param):
        program.write("answers", index, struct.pack("=i", value))
    return program


@pytest.fixture
def outer(recorders: tuple[Recorder, Recorder]) -> Iterator[Recorder]:
    """A recorder above both hosts; it replies nothing of use."""
    recorder = recorders[1]
    recorder.reset()
    recorder.attach(CGROUPS)
    yield recorder
    recorder.detach()


@pytest.fixture
def inner(hosts: TwoHosts, recorders: tuple[Recorder, Recorder]) -> Recorder:
    """A recorder at the client; it replies nothing of use."""
    recorder = recorders[0]
    recorder.reset()
    recorder.attach(hosts.client.cgroup)
    return recorder


@pytest.mark.parametrize("ip", ["10.1.0.2", "fd00:1::2"])
def test_claim_of_the_inner_program_stands(
    hosts: TwoHosts, client: Recorder, unconcerned: SockOpsProgram, ip: str
) -> None:
    """Whatever an outer program replies or returns: the session is claimed, and gets its subflow."""
    accept_joins(hosts)
    client.act(0, Op.FULLY_ESTABLISHED, "open")
    with attached(unconcerned, CGROUPS):
        hosts.connect(hosts.listen(ip), ip)
        wait_equal(lambda: len(hosts.client.subflows()), 2)
    assert hosts.client.counter("BPFClaimed") == 1


@pytest.mark.parametrize("ip", ["10.1.0.2", "fd00:1::2"])
def test_claim_of_the_outer_program_stands(
    hosts: TwoHosts, outer: Recorder, unconcerned: SockOpsProgram, ip: str
) -> None:
    """The same, with the program that is not concerned before the one that claims."""
    accept_joins(hosts)
    outer.reply(new_session=CLAIM)
    outer.act(0, Op.FULLY_ESTABLISHED, "open", remaining=2)  # the server's gets nowhere
    with attached(unconcerned, hosts.client.cgroup):
        hosts.connect(hosts.listen(ip), ip)
        wait_equal(lambda: len(hosts.client.subflows()), 2)
    assert (hosts.client.counter("BPFClaimed"), hosts.server.counter("BPFClaimed")) == (1, 1)


def join(hosts: TwoHosts, client: Recorder, ip: str) -> None:
    """The client opens a subflow, whose fate is known when this returns."""
    client.act(0, Op.FULLY_ESTABLISHED, "open")
    ends = hosts.connect(hosts.listen(ip), ip)
    wait_equal(lambda: hosts.server.counter("MPJoinAckRx") + hosts.server.counter("BPFJoinRefused"), 1)
    exchange(*ends)


@pytest.mark.parametrize("refuser", ["inner", "outer"])
@pytest.mark.parametrize("ip", ["10.1.0.2", "fd00:1::2"])
def test_refusal_stands(
    hosts: TwoHosts,
    client: Recorder,
    recorders: tuple[Recorder, Recorder],
    unconcerned: SockOpsProgram,
    ip: str,
    refuser: str,
) -> None:
    """The join that one program refuses is refused, whether the other comes before or after it."""
    accept_joins(hosts)
    _, recorder = recorders
    recorder.reset()
    recorder.reply(join_request=REFUSE)
    above, below = CGROUPS, hosts.server.cgroup
    places = (below, above) if refuser == "inner" else (above, below)
    with attached(recorder, places[0]), attached(unconcerned, places[1]):
        join(hosts, client, ip)
    assert hosts.server.counter("BPFJoinRefused") == 1
    assert len(hosts.client.subflows()) == len(hosts.server.subflows()) == 1


def test_join_that_nobody_refuses(
    hosts: TwoHosts, client: Recorder, server: Recorder, unconcerned: SockOpsProgram
) -> None:
    """A reply that is none of the two lets the join in, as no reply does."""
    accept_joins(hosts)
    with attached(unconcerned, CGROUPS):
        join(hosts, client, "10.1.0.2")
    assert hosts.server.counter("BPFJoinRefused") == 0


def test_later_programs_see_the_decision(hosts: TwoHosts, inner: Recorder, outer: Recorder) -> None:
    """After the inner program's claim the flags of the same callback say so, not before."""
    inner.attach(hosts.server.cgroup)
    inner.reply(new_session=CLAIM)
    hosts.connect(hosts.listen())
    assert [e.flags & Flag.CLAIMED for e in inner.events(Op.NEW_SESSION)] == [0, 0]
    assert [e.flags & Flag.CLAIMED for e in outer.events(Op.NEW_SESSION)] == [Flag.CLAIMED, Flag.CLAIMED]


def test_no_program_claims_for_the_next(hosts: TwoHosts, inner: Recorder, outer: Recorder) -> None:
    """The flag says what a program decided about this session, nothing about the one before."""
    inner.reply(new_session=CLAIM)
    listener = hosts.listen()
    hosts.connect(listener)
    inner.reply(new_session=0)
    hosts.connect(listener)
    at_client = [e for e in outer.events(Op.NEW_SESSION) if not e.flags & Flag.SERVER]
    assert [e.flags & Flag.CLAIMED for e in at_client] == [Flag.CLAIMED, 0]
    assert hosts.client.counter("BPFClaimed") == 1


def test_each_program_has_its_own_arguments(
    hosts: TwoHosts, client: Recorder, server: Recorder, outer: Recorder, unconcerned: SockOpsProgram
) -> None:
    """What an inner program writes into the reply, which lies where the arguments lie, no other one sees."""
    client.reply(new_session=0)
    outer.reply(new_session=CLAIM)
    with attached(unconcerned, hosts.client.cgroup):
        hosts.connect(hosts.listen("0.0.0.0"))
    for event in (*client.events(Op.NEW_SESSION), *outer.events(Op.NEW_SESSION)):
        assert event.args == (0, int(bool(event.flags & Flag.SERVER)), 0, 0)


# The shipped programs


def test_refusal_of_the_accept_rule_stands(hosts: TwoHosts, load: Load, unconcerned: SockOpsProgram) -> None:
    """Who is refused by `accept` stays out with an outer program in the way, and the counts agree."""
    accept_joins(hosts)
    program = load(hosts.server, policy("none", accept=Accept(max_subflows=1)))
    load(hosts.client, policy("ndiffports"))
    with attached(unconcerned, CGROUPS):
        ends = hosts.connect(hosts.listen())
        wait_equal(lambda: hosts.server.counter("BPFJoinRefused") > 0, True)
        exchange(*ends)
    assert len(hosts.server.subflows()) == 1
    assert program.count(ClaimCounter.JOINS_REFUSED) == hosts.server.counter("BPFJoinRefused")


def test_claims_do_not_fill(hosts: TwoHosts, load: Load, unconcerned: SockOpsProgram) -> None:
    """With an outer program in the way, many more sessions than the map has room for are claimed in turn."""
    accept_joins(hosts)
    program = load(hosts.client, policy("ndiffports"), room=4)
    listener = hosts.listen()
    with attached(unconcerned, CGROUPS):
        for _ in range(12):
            for end in hosts.connect(listener):
                end.close()
            wait_equal(program.sessions, 0)
        hosts.connect(listener)
        wait_equal(lambda: pairs(hosts.client), Counter({Pair("10.1.0.1", "10.1.0.2", 5000): 2}))
    assert program.count(ClaimCounter.CLAIMED) == hosts.client.counter("BPFClaimed") == 13
    assert program.count(ClaimCounter.CLAIM_FAILED) == 0


def test_sessions_that_others_claimed_take_no_room(hosts: TwoHosts, load: Load, client: Recorder) -> None:
    """A session that an inner program claimed is not entered, and its joins are not ours to refuse."""
    cgroup, hosts.client.cgroup = hosts.client.cgroup, CGROUPS
    program = load(hosts.client, policy("fullmesh"), TWO, room=4)
    hosts.client.cgroup = cgroup
    listener = hosts.listen()
    for _ in range(8):
        exchange(*hosts.connect(listener))
    assert hosts.client.counter("BPFClaimed") == client.count(Op.NEW_SESSION) == 8
    assert program.sessions() == program.count(ClaimCounter.CLAIMED) == 0
    assert program.count(ClaimCounter.CLAIM_FAILED) == 0
    assert hosts.client.counter("BPFReq") == 0
