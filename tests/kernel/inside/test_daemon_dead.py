# SPDX-License-Identifier: Apache-2.0
"""The bpf datapath without its service: programs decide in the kernel, and the next service takes over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from pm.linux.bpf.local_address_maps import LOCALS
from tests.lab.lab import Lab
from tests.lab.scenarios import config, mesh, pairs_of, policy, ports_of
from tests.lab.service import Service
from tests.lab.traffic import Traffic
from tests.lab.waiting import wait_equal, wait_for

CONNECTIONS = 250  # of each policy
RATE = 100  # per second, while the service starts


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.ip("server", "mptcp", "endpoint", "add", lab.address("server", 2), "dev", "eth1", "signal")
        lab.server()
        yield lab


def start(lab: Lab) -> Service:
    policies = (policy(lab, "mesh"), policy(lab, "ports", {"ndiffports": {"subflows": 3}}))
    for name in ("mesh", "ports"):
        lab.cgroup(name)
    return lab.service(config(*policies, datapath="bpf"))


def wait_for_subflows(lab: Lab, meshes: Traffic, ports: Traffic, sessions: int) -> None:
    """Exactly those that the policies ask for, on ``sessions`` sessions of each."""
    first = (lab.address("client", 1), lab.address("server", 1))

    def sessions_by_pairs(local_ports: set[int]) -> Counter[tuple[tuple[str, str], ...]]:
        return Counter(tuple(sorted(found.elements())) for found in pairs_of(lab, local_ports))

    for client, pairs in ((meshes, mesh(lab, 4, 2)), (ports, [first] * 3)):
        want = {tuple(sorted(pairs)): sessions}
        wait_equal(partial(sessions_by_pairs, ports_of(client)), want, deadline_s=30)


def test_connections_after_sigkill(lab: Lab) -> None:
    """500 connections are opened with the service dead: all get their subflows.

    The next service takes over while more are opened: each session stays with its program, none is
    without, and nothing is opened twice.
    """
    service = start(lab)
    pins = set(lab.pins())
    meshes, ports = lab.client(cgroup="mesh"), lab.client(cgroup="ports")
    service.kill()
    meshes.open(CONNECTIONS)
    ports.open(CONNECTIONS)
    wait_for_subflows(lab, meshes, ports, CONNECTIONS)

    meshes.begin("open", count=CONNECTIONS, rate=RATE)
    service.start()
    meshes.finish()
    ports.open(CONNECTIONS)
    wait_for_subflows(lab, meshes, ports, 2 * CONNECTIONS)
    total = 4 * CONNECTIONS
    sessions = wait_for(
        lambda: service.sessions(limit=1000),
        "all sessions and their subflows",
        until=lambda found: sum(len(s["subflows"]) for s in found) == 7 * total // 2,
        deadline_s=30,
    )
    assert {(s["policy"], s["program"]) for s in sessions} == {("mesh", "fullmesh"), ("ports", "ndiffports")}
    counters = service.get("/v1/status")["counters"]
    assert (counters["claimed"], counters.get("open", 0), counters.get("repairs", 0)) == (total, 0, 0)
    assert set(lab.pins()) == pins
    wait_for_subflows(lab, meshes, ports, 2 * CONNECTIONS)


def standbys(lab: Lab) -> list[tuple[str, bool]]:
    """(local address, whether it is a backup) of the established subflows that are not the initial one."""
    flows = [f for flows in lab.subflows("client").values() for f in flows]
    return [(f.local, f.backup) for f in flows if f.state == "ESTAB" and not f.initial]


@pytest.mark.parametrize("family", [4, 6])
def test_standby_beside_a_primary_that_the_rules_exclude(lab: Lab, family: int) -> None:
    """With the service dead: the primary's interface is outside `include`, and works; so the standby is one.

    A second address of that interface is none.
    """
    service = lab.service(
        config(policy(lab, "a", "backup"), datapath="bpf", addresses={"include": ["eth1"], "all": True})
    )
    client = lab.client(lab.address("server", 1, family), cgroup="a")
    service.kill()
    client.open()
    wait_equal(lambda: standbys(lab), [(lab.address("client", 2, family), True)])


def test_standby_beside_many_addresses(lab: Lab) -> None:
    """More addresses on the first interface than the programs have slots: the second's has one."""
    for number in range(50, 50 + 2 * LOCALS):
        lab.ip("client", "addr", "add", f"10.77.1.{number}/24", "dev", "eth0")
    service = lab.service(
        config(policy(lab, "a", "backup"), datapath="bpf", addresses={"include": ["eth*"], "all": True})
    )
    client = lab.client(cgroup="a")
    listed = service.get("/v1/addresses")["addresses"]
    assert sum(a["usable"] for a in listed) > 2 * LOCALS
    service.kill()
    client.open()
    wait_equal(lambda: standbys(lab), [(lab.address("client", 2), True)])
