# SPDX-License-Identifier: GPL-2.0-only
"""Which of this host's addresses a service uses and announces that nobody told which."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import config, mesh, pairs_of, policy, wait_pairs
from tests.lab.service import Service
from tests.lab.waiting import wait_for

DEFAULTS: dict[str, Any] = {"addresses": {}}
DOCKER = {4: "172.17.0.1", 6: "fd00:17::1"}


def add_docker0(lab: Lab, side: str) -> None:
    """A bridge of containers, with an address of each family and a port."""
    lab.ip(side, "link", "add", "docker0", "type", "bridge")
    lab.ip(side, "link", "set", "docker0", "up")
    lab.ip(side, "addr", "add", f"{DOCKER[4]}/16", "dev", "docker0")
    lab.ip(side, "addr", "add", f"{DOCKER[6]}/64", "dev", "docker0", "nodad")
    lab.ip(side, "link", "add", "veth7", "type", "veth", "peer", "name", "inner7")
    lab.ip(side, "link", "set", "veth7", "up", "master", "docker0")
    lab.ip(side, "link", "set", "inner7", "up")


def addresses(service: Service) -> dict[str, dict[str, Any]]:
    return {a["ip"]: a for a in service.get("/v1/addresses")["addresses"]}


@pytest.mark.parametrize("family", [4, 6])
def test_a_bridge_of_containers_is_no_path(lab: Lab, family: int) -> None:
    """``backup`` waits for the second link instead of a standby that never works; a name admits docker0."""
    server = lab.address("server", 1, family)
    add_docker0(lab, "client")
    lab.set_link("client", 2, up=False)
    lab.server("--address", server)
    service = lab.service(config(policy(lab, "a", "backup"), **DEFAULTS))
    docker0 = addresses(service)[DOCKER[family]]
    assert (docker0["usable"], docker0["up"], docker0["interface"]) == (False, True, "docker0")
    assert docker0["why"].startswith("bridge without an uplink")
    lab.client(server, cgroup="a").open()
    wait_pairs(lab, mesh(lab, family)[:1])
    lab.set_link("client", 2, up=True)
    wait_pairs(lab, mesh(lab, family))
    assert DOCKER[family] not in str(service.sessions())
    service.configure(config(policy(lab, "a", "none"), addresses={"include": ["*", "docker0"]}))
    service.reload()
    assert addresses(service)[DOCKER[family]]["usable"]


def test_a_bridge_of_containers_is_not_announced(lab: Lab) -> None:
    """Clients hear of the server's second link, and not of docker0."""
    add_docker0(lab, "server")
    lab.server(cgroup="srv")
    lab.service(config(policy(lab, "srv", "none", announce=True), **DEFAULTS), ns="server")
    service = lab.service(config(policy(lab, "a"), **DEFAULTS))
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab, 4, 2))
    (session,) = service.sessions()
    assert DOCKER[4] not in {remote["ip"] for remote in session["remote_addresses"]}


def test_a_session_over_an_optimistic_address_is_left_alone(lab: Lab) -> None:
    """RFC 4429: the application connects while duplicate address detection runs; nothing resets it."""
    ip, server = "fd00:77:1::77", lab.address("server", 1, 6)
    conf = {f"net__ipv6__conf__eth0__{key}": 1 for key in ("accept_dad", "optimistic_dad", "use_optimistic")}
    lab.sysctl("client", **conf, net__ipv6__conf__eth0__dad_transmits=60)
    lab.ip("client", "addr", "add", f"{ip}/64", "dev", "eth0", "optimistic")
    lab.server("--address", server)
    service = lab.service(config(policy(lab, "a"), **DEFAULTS))
    assert addresses(service)[ip]["why"] == "usable"
    client = lab.client(server, "--bind", ip, cgroup="a")
    client.open()
    wait_for(lambda: [pairs for pairs in pairs_of(lab) if (ip, server) in pairs], "a session from it")
    wait_for(lambda: ip in str(service.sessions()), "the service shows it")
    client.send(bytes=100_000)
    assert "tentative" in lab.ip("client", "addr", "show", "dev", "eth0", "to", ip)
    assert any((ip, server) in pairs for pairs in pairs_of(lab))
