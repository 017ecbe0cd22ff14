# SPDX-License-Identifier: Apache-2.0
"""What is on the wire, byte by byte: which packets carry options, and which never do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pm.linux.bpf.tcp_option_layouts import BUILT_IN
from pm.policies.built_in_options import KIND_EXPERIMENT as EXPERIMENT
from pm.policies.built_in_options import KIND_USER_TIMEOUT as USER_TIMEOUT
from tests.lab.capture import SYN, Capture, Option, Segment
from tests.lab.forge import Puppet
from tests.lab.lab import Lab
from tests.lab.tcp_options import ACCEPT, ASKED, SEND, USUAL, WIRE, Connection, End, start

PORT = 5000


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(client=1, server=1) as lab:
        for cgroup in ("client", "server"):
            lab.cgroup(cgroup)
        start(lab, {"client": SEND}, {"server": ACCEPT})
        yield lab


def ours(segment: Segment) -> list[Option]:
    return [option for option in segment.options if option.kind in (USER_TIMEOUT, EXPERIMENT)]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("mptcp", [False, True], ids=["tcp", "mptcp"])
def test_packets(lab: Lab, family: int, mptcp: bool) -> None:
    """No SYN has an option; the third packet is the first; all follow, well-formed; then there is silence."""
    with Capture(lab.netns("client")) as capture:
        with Connection(lab, family=family, mptcp=mptcp) as connection:
            for _ in range(4):
                connection.exchange(answer=20_000)
        segments = capture.segments()
    syns = [s for s in segments if s.flags & SYN]
    assert syns
    assert all(ours(s) == [] for s in syns)
    sent = [s for s in segments if s.destination[1] == PORT and not s.flags & SYN]
    assert WIRE["initial_window"] in ours(sent[0])
    assert {option for s in segments for option in ours(s)} == set(WIRE.values())
    assert all(not ours(s) for s in segments if s.source[1] == PORT)
    if not mptcp:
        assert ours(sent[0]) == [WIRE[name] for name in BUILT_IN]
        assert not any(ours(s) for s in sent[len(sent) // 2 :])


@pytest.mark.parametrize("family", [4, 6])
def test_syn_changes_nothing(lab: Lab, family: int) -> None:
    """Every option in a peer's SYN is ignored; those in the packet that ends the handshake are honoured."""
    wire = b"".join(option.packed() for option in WIRE.values())
    local, remote = lab.address("client", 1, family), lab.address("server", 1, family)
    for where in ("syn", "ack"):
        server = End(lab, "server", "server")
        with Puppet(lab.netns("client"), local, (remote, PORT)) as puppet:
            puppet.connect(**{where: wire})
            puppet.send(bytes(100))
            server.do("open")
            server.do("receive", bytes=100)
            got, reports = server.get(), server.reports()
            server.close()
        honoured = where == "ack"
        assert set(reports) == (set(BUILT_IN) if honoured else set())
        assert (got["user_timeout"], got["cwnd"]) == ((30_000, 20) if honoured else (0, 10))
        assert got["congestion"] == (ASKED if honoured else USUAL)
        assert (got["ato"] < 40_000) == honoured
