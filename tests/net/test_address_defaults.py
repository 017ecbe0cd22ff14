# SPDX-License-Identifier: Apache-2.0
"""Which of this host's addresses a service uses and announces that nobody told which."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import config, mesh, policy, wait_pairs
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


@pytest.mark.parametrize("use_optimistic", [0, 1])
@pytest.mark.parametrize("found", ["by the dump", "later"])
def test_a_session_over_an_optimistic_address_is_left_alone(
    lab: Lab, use_optimistic: int, found: str
) -> None:
    """RFC 4429: the application connects while duplicate address detection runs; nothing resets it.

    With ``use_optimistic: 0`` the kernel tells of a new one only after the detection.
    """
    ip, server = "fd00:77:1::77", lab.address("server", 1, 6)
    conf = {"accept_dad": 1, "optimistic_dad": 1, "use_optimistic": use_optimistic, "dad_transmits": 60}
    lab.sysctl("client", **{f"net__ipv6__conf__eth0__{key}": value for key, value in conf.items()})
    lab.server("--address", server)
    if found == "by the dump":
        lab.ip("client", "addr", "add", f"{ip}/64", "dev", "eth0", "optimistic")
    service = lab.service(config(policy(lab, "a"), addresses={"all": True}))
    if found == "later":
        lab.ip("client", "addr", "add", f"{ip}/64", "dev", "eth0", "optimistic")
    if use_optimistic or found == "by the dump":
        wait_for(lambda: addresses(service).get(ip, {}).get("up"), "the address is up")
    client = lab.client(server, "--bind", ip, cgroup="a")
    client.open()
    wanted = [(own, server) for own in (*lab.addresses("client", 6), ip)]
    wait_pairs(lab, wanted)
    client.send(bytes=100_000)
    service.configure(config(policy(lab, "a"), addresses={"all": True, "link_local": True}))
    service.reload()  # plans every session once more
    client.send(bytes=100_000)
    wait_pairs(lab, wanted)
    assert "tentative" in lab.ip("client", "addr", "show", "dev", "eth0", "to", ip)


def temporary_address(lab: Lab) -> str:
    """The client's temporary address on the first link, once the kernel has made one."""

    def temporary() -> list[str]:
        shown = json.loads(lab.ip("client", "-j", "addr", "show", "dev", "eth0"))[0]["addr_info"]
        return [a["local"] for a in shown if a.get("temporary") and not a.get("tentative")]

    lab.sysctl("client", net__ipv6__conf__eth0__use_tempaddr=2, net__ipv6__conf__eth0__accept_dad=0)
    lab.ip("client", "addr", "add", "fd00:77:1::aa/64", "dev", "eth0", "mngtmpaddr", "nodad")
    return wait_for(temporary, "a temporary address")[0]


def test_fullmesh_does_not_show_the_address_that_a_temporary_one_hides(lab: Lab) -> None:
    """Privacy extensions: each link one subflow, and the first from the address that the kernel took."""
    hidden, server = temporary_address(lab), lab.address("server", 1, 6)
    wanted = [(hidden, server), (lab.address("client", 2, 6), server)]
    lab.server("--address", server)
    service = lab.service(config(policy(lab, "a"), **DEFAULTS))
    lab.client(server, cgroup="a").open()
    wait_pairs(lab, wanted)
    why = addresses(service)["fd00:77:1::aa"]["why"]
    assert why == f"{hidden} is used of fd00:77:1::/64, and addresses.all is false"
    service.configure(config(policy(lab, "a"), addresses={"all": True}))
    service.reload()
    wait_pairs(lab, [*wanted, ("fd00:77:1::aa", server), (lab.address("client", 1, 6), server)])


def test_a_second_address_of_a_subnet_is_announced_only_on_request(lab: Lab) -> None:
    """One address per interface and prefix, at a server too."""
    lab.add_address("server", 2, "10.77.2.77")
    lab.server(cgroup="srv")
    announced = policy(lab, "srv", "none", announce=True)
    server = lab.service(config(announced, **DEFAULTS), ns="server")
    lab.service(config(policy(lab, "a"), **DEFAULTS))
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab, 4, 2))
    server.configure(config(announced, addresses={"all": True}))
    server.reload()
    wait_pairs(lab, [*mesh(lab, 4, 2), *((ip, "10.77.2.77") for ip in lab.addresses("client"))])


def test_the_order_of_interfaces_decides_where_a_cap_is_short(make_lab: Callable[..., Lab]) -> None:
    """Of three links two have room; a reload changes which, and the subflow follows."""
    lab = make_lab(client=3, server=1)
    lab.server()
    capped = policy(lab, "a", {"fullmesh": {"max_subflows": 2}})

    def ordered(*order: str) -> dict[str, Any]:
        return config(capped, addresses={"include": ["eth*"], "order": list(order)})

    def shown() -> list[str]:
        found = service.get("/v1/addresses")["addresses"]
        return [a["interface"] for a in found if a["usable"] and ":" not in a["ip"]]

    service = lab.service(ordered("eth2", "eth*"))
    assert shown() == ["eth2", "eth0", "eth1"]
    lab.client(cgroup="a").open()
    first, second, third = mesh(lab)
    wait_pairs(lab, [first, third])
    service.configure(ordered("eth1"))
    service.reload()
    assert shown() == ["eth1", "eth0", "eth2"]
    wait_pairs(lab, [first, second])
