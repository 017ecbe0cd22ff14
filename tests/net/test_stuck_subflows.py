# SPDX-License-Identifier: Apache-2.0
"""Subflows that look established and carry nothing: a NAT or firewall on the way forgot them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.oracle import Flow
from tests.lab.scenarios import config, drop, mesh, policy, wait_pairs
from tests.lab.service import Service
from tests.lab.traffic import assert_same_bytes
from tests.lab.waiting import wait_equal, wait_for


def flow_from(lab: Lab, local: str) -> Flow:
    return wait_for(
        lambda: [f for fs in lab.subflows().values() for f in fs if f.local == local and f.state == "ESTAB"],
        f"a subflow from {local}",
    )[0]


def history(service: Service, detail: str | None = None) -> list[str]:
    """Words of the only session's history, or only those with this detail."""
    (session,) = service.sessions()
    events = service.get(f"/v1/sessions/{session['token']}")["events"]
    return [e["event"] for e in events if detail in (None, e["detail"])]


@pytest.mark.parametrize("path_manager", ["backup", "fullmesh"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_dead_standby_is_replaced(lab: Lab, path_manager: str, family: int) -> None:
    """The standby died while it idled; the primary's link goes: the request is answered all the same."""
    server = lab.server()
    service = lab.service(config(policy(lab, "a", path_manager)))
    client = lab.client(lab.address("server", 1, family), cgroup="a")
    client.open()
    wait_pairs(lab, mesh(lab, family))
    dead = flow_from(lab, lab.address("client", 2, family))
    drop(lab, dead)
    lab.set_link("client", 1, up=False)
    client.send(bytes=100_000, deadline_s=30)
    assert_same_bytes(client, server)
    assert "subflow_stuck" in history(service)
    wait_for(
        lambda: [f.local_port for fs in lab.subflows().values() for f in fs if f.state == "ESTAB"],
        "the stuck subflow closed",
        until=lambda ports: dead.local_port not in ports,
    )


@pytest.mark.parametrize("limit", [2, 3])
@pytest.mark.parametrize("family", [4, 6])
def test_a_peer_whose_limit_counts_the_dead_one(
    make_lab: Callable[..., Lab], limit: int, family: int
) -> None:
    """It refuses another join while it has its half: the address id is taken back, and it lets us in."""
    lab = make_lab(client=3, server=1, limit=limit)
    server = lab.server()
    addresses = {"include": ["eth*"], "backup": ["eth2"]}
    service = lab.service({"addresses": addresses, "policies": [policy(lab, "a")]})
    client = lab.client(lab.address("server", 1, family), cgroup="a")
    client.open()
    wait_pairs(lab, mesh(lab, family))
    dead = flow_from(lab, lab.address("client", 2, family))
    drop(lab, dead)
    lab.set_link("client", 1, up=False)
    client.begin("send", seconds=15, rate=1_000_000)
    wait_for(
        lambda: [
            f
            for fs in lab.subflows().values()
            for f in fs
            if f.local == dead.local and f.local_port != dead.local_port and f.state == "ESTAB"
        ],
        "another subflow from the address",
        deadline_s=30,
    )
    client.finish(90)
    assert_same_bytes(client, server)
    assert "subflow_stuck" in history(service)
    assert ("address_withdrawn" in history(service, dead.local)) == (limit == 2)


@pytest.mark.parametrize("family", [4, 6])
def test_a_peer_whose_limit_counts_one_that_is_gone_here(make_lab: Callable[..., Lab], family: int) -> None:
    """Keepalive closed the dead standby, which the peer does not see: the address id is taken back, once."""
    lab = make_lab(client=2, server=1, limit=1)
    server = lab.server()
    keepalive = {"idle": "1s", "interval": "1s", "count": 1}
    service = lab.service(config(policy(lab, "a", "backup", keepalive=keepalive)))
    client = lab.client(lab.address("server", 1, family), cgroup="a")
    client.open()
    wait_pairs(lab, mesh(lab, family))
    dead = flow_from(lab, lab.address("client", 2, family))
    drop(lab, dead)
    wait_equal(lambda: history(service, dead.local).count("address_withdrawn"), 1, deadline_s=30)
    # A join that the peer refuses is established here until its RST arrives, hence also there.
    wait_pairs(lab, mesh(lab, family), deadline_s=30)
    wait_for(
        lambda: [
            f.remote_port
            for fs in lab.subflows("server").values()
            for f in fs
            if f.remote == dead.local and f.state == "ESTAB"
        ],
        "another subflow at the peer",
        until=lambda ports: len(ports) == 1 and ports != [dead.local_port],
    )
    lab.set_link("client", 1, up=False)
    client.send(bytes=10_000, deadline_s=30)
    assert_same_bytes(client, server)
    assert history(service, dead.local).count("address_withdrawn") == 1


def test_the_last_subflow_stays_while_it_is_stuck(make_lab: Callable[..., Lab]) -> None:
    """All paths are dead for a while: nothing is closed that could come back, and the data arrives."""
    lab = make_lab(client=1, server=1)
    server = lab.server()
    service = lab.service(config(policy(lab, "a")))
    client = lab.client(cgroup="a")
    client.open()
    wait_pairs(lab, mesh(lab))
    initial = flow_from(lab, lab.address("client", 1))
    lab.ip("net", "link", "set", "server1", "down")
    client.begin("send", bytes=100_000)
    wait_for(lambda: "subflow_stuck" in history(service), "the subflow is seen to be stuck", deadline_s=30)
    lab.ip("net", "link", "set", "server1", "up")
    client.finish(60)
    assert_same_bytes(client, server)
    assert initial.local_port in [f.local_port for fs in lab.subflows().values() for f in fs]


def test_a_slow_path_is_not_stuck(make_lab: Callable[..., Lab]) -> None:
    """A link of 1 Mbit/s with a full queue acknowledges late, but it does."""
    lab = make_lab(client=2, server=1)
    lab.shape(2, 1)
    server = lab.server()
    service = lab.service(config(policy(lab, "a")))
    client = lab.client(cgroup="a")
    client.open()
    wait_pairs(lab, mesh(lab))
    client.send(seconds=6, rate=400_000, deadline_s=90)
    assert_same_bytes(client, server)
    assert "subflow_stuck" not in history(service)
    states: list[Any] = [s["stuck"] for s in service.sessions()[0]["subflows"]]
    assert states == [False, False]
