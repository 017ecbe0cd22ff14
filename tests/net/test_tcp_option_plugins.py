# SPDX-License-Identifier: Apache-2.0
"""Every option plugin and every pair of them, over TCP and MPTCP, IPv4 and IPv6: what the receiver has."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest

from pm.linux.bpf.tcp_option_layouts import BUILT_IN
from tests.lab.lab import Lab
from tests.lab.tcp_options import ACCEPT, ALGORITHMS, ASKED, SEND, USUAL, Connection, start

PAIRS = [*((name,) for name in BUILT_IN), *combinations(BUILT_IN, 2), BUILT_IN]
APPLIED = {"user_timeout": 30_000, "congestion_control": ALGORITHMS[ASKED], "initial_window": 20}


def cgroup_of(plugins: tuple[str, ...]) -> str:
    return "-".join(plugins)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A client's service with a policy per set of plugins, a server's that accepts everything."""
    with Lab(client=1, server=1) as lab:
        client = {cgroup_of(plugins): {name: SEND[name] for name in plugins} for plugins in PAIRS}
        for plugins in PAIRS:
            lab.cgroup(cgroup_of(plugins))
        lab.cgroup("server")
        start(lab, client, {"server": ACCEPT})
        yield lab


@pytest.mark.parametrize("mptcp", [False, True], ids=["tcp", "mptcp"])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("plugins", PAIRS, ids=cgroup_of)
def test_receiver_has_what_was_asked(lab: Lab, plugins: tuple[str, ...], family: int, mptcp: bool) -> None:
    """The server's socket has what the client's policy asks for, of each plugin, and nothing else."""
    with Connection(lab, cgroup_of(plugins), family=family, mptcp=mptcp) as connection:
        server = connection.server
        at_once = server.get()
        for _ in range(8):
            connection.exchange(answer=20_000)  # MPTCP has room in acknowledgements without data
        got, reports = server.get(), server.reports()
        assert set(reports) == set(plugins)
        sent = connection.client.reports()
        for name in plugins:
            assert (sent[name].sent, reports[name].received, reports[name].refused) == (True, True, None)
            if name in APPLIED:
                assert reports[name].applied == APPLIED[name]
        assert got["congestion"] == (ASKED if "congestion_control" in plugins else USUAL)
        if not mptcp:  # an MPTCP socket does not tell
            assert got["user_timeout"] == (30_000 if "user_timeout" in plugins else 0)
            assert at_once["cwnd"] == (20 if "initial_window" in plugins else 10)
            limited = got["ato"] < 40_000  # what Linux starts with
            assert limited == ("delayed_ack" in plugins)
