# SPDX-License-Identifier: Apache-2.0
"""A laptop as DHCP leaves it: a default route per link, told apart by their metrics only, and no rules.

The server has an address behind the router, and link 1 does not carry what has the address of link 2.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import SERVER, config, make_laptop, pairs_of, policy, wait_pairs
from tests.lab.service import Service
from tests.lab.waiting import wait_equal

MARK = 51820  # that wg-quick gives its own packets
families = pytest.mark.parametrize("family", [4, 6])


@pytest.fixture
def laptop(lab: Lab) -> Lab:
    """The client is one."""
    make_laptop(lab)
    return lab


def pairs(lab: Lab, family: int, *links: int) -> list[tuple[str, str]]:
    return [(lab.address("client", link, family), SERVER[family]) for link in links]


def unroutable(service: Service) -> dict[str, str]:
    """Local address -> why, of the only session."""
    return {p["local"]: p["reason"] for s in service.sessions() for p in s["unroutable"]}


def bound(lab: Lab, ip: str) -> list[str]:
    """What the established subflows from an address are bound to."""
    return [f.device for fs in lab.subflows().values() for f in fs if f.local == ip and f.state == "ESTAB"]


@families
@pytest.mark.parametrize("path_manager", ["fullmesh", "backup"])
def test_subflows_leave_by_the_interface_of_their_address(
    laptop: Lab, family: int, path_manager: str
) -> None:
    """Without rules both would leave by link 1: the second is bound, and the first is not."""
    laptop.server("--address", SERVER[family])
    laptop.service(config(policy(laptop, "a", path_manager)))
    client = laptop.client(SERVER[family], cgroup="a")
    client.open(2)
    wait_pairs(laptop, pairs(laptop, family, 1, 2), sessions=2)
    client.open(1)
    wait_pairs(laptop, pairs(laptop, family, 1, 2), sessions=3)
    assert bound(laptop, laptop.address("client", 2, family)) == ["eth1"] * 3
    assert bound(laptop, laptop.address("client", 1, family)) == [""] * 3


@families
def test_a_pair_without_a_way_sends_no_syn_and_holds_no_place(laptop: Lab, family: int) -> None:
    """A session says why it has one path only; it gets the second when a rule of the host makes one."""
    second = laptop.address("client", 2, family)
    laptop.server("--address", SERVER[family])
    only_routes: dict[str, Any] = {"addresses": {"include": ["eth*"], "bind_interface": False}}
    service = laptop.service(config(policy(laptop, "a", {"fullmesh": {"max_subflows": 2}}), **only_routes))
    laptop.client(SERVER[family], cgroup="a").open()
    reason = {second: "packets would leave by eth0, and addresses.bind_interface is false"}
    wait_equal(lambda: unroutable(service), reason)
    third = f"{laptop.address('client', 1, family)}0"  # of link 1, thus routed: the place is free
    length = 24 if family == 4 else 64
    laptop.ip("client", "addr", "add", f"{third}/{length}", "dev", "eth0", *["nodad"] * (family == 6))
    service.configure(
        config(
            policy(laptop, "a", {"fullmesh": {"max_subflows": 2}}),
            addresses={**only_routes["addresses"], "all": True},
        )
    )
    service.reload()
    wait_pairs(laptop, [*pairs(laptop, family, 1), (third, SERVER[family])])
    (session,) = service.sessions()
    events = service.get(f"/v1/sessions/{session['token']}")["events"]
    assert not [e for e in events if e["event"] == "subflow_opening" and e["detail"].startswith(second)]
    laptop.ip("client", "addr", "del", f"{third}/{length}", "dev", "eth0")
    laptop.ip("client", f"-{family}", "rule", "add", "from", second, "table", "102")
    wait_pairs(laptop, pairs(laptop, family, 1, 2))
    wait_equal(lambda: unroutable(service), {})


@families
def test_a_vpn_is_not_bypassed(laptop: Lab, family: int) -> None:
    """With rules as wg-quick makes them, only a session with the VPN's own mark gets a subflow beside it."""
    laptop.server("--address", SERVER[family])
    service = laptop.service(config(policy(laptop, "a"), policy(laptop, "vpn")))
    plain = laptop.client(SERVER[family], cgroup="a")
    laptop.set_link("client", 2, up=False)
    plain.open()
    wait_pairs(laptop, pairs(laptop, family, 1))
    ip = f"-{family}"
    laptop.ip("client", "tuntap", "add", "wg0", "mode", "tun")
    laptop.ip("client", "link", "set", "wg0", "up")
    laptop.ip("client", ip, "route", "add", "default", "dev", "wg0", "table", str(MARK))
    laptop.ip("client", ip, "rule", "add", "not", "fwmark", str(MARK), "table", str(MARK))
    laptop.ip("client", ip, "rule", "add", "table", "main", "suppress_prefixlength", "0")
    laptop.set_link("client", 2, up=True)
    first, second = (laptop.address("client", link, family) for link in (1, 2))
    tunnel = "the route leads into the tunnel wg0, which is not bypassed"
    wait_equal(lambda: unroutable(service), {first: tunnel, second: tunnel})
    laptop.client(SERVER[family], "--mark", str(MARK), cgroup="vpn").open()
    wait_equal(lambda: bound(laptop, second), ["eth1"])
    assert bound(laptop, first) == ["", ""]
    wait_equal(lambda: unroutable(service), {first: tunnel, second: tunnel})


def test_an_address_that_moves_takes_its_subflows_along(laptop: Lab) -> None:
    """The interface becomes a port of a bridge: another subflow takes over, and bytes go on."""
    laptop.server("--address", SERVER[4])
    laptop.service(config(policy(laptop, "a"), addresses={"include": ["eth*", "br*"]}))
    client = laptop.client(SERVER[4], cgroup="a")
    client.open()
    wait_pairs(laptop, pairs(laptop, 4, 1, 2))
    second = laptop.address("client", 2)
    assert bound(laptop, second) == ["eth1"]
    for line in (
        "link add br0 type bridge",
        "link set br0 up",
        f"addr add {second}/24 dev br0",
        "link set eth1 master br0",
        f"addr del {second}/24 dev eth1",
        "route replace default via 10.77.2.254 dev br0 metric 2000",
        "route del default via 10.77.2.254 dev eth1 metric 2000",
    ):
        if line.startswith("route del") and "dev eth1" not in laptop.ip("client", "route"):
            continue
        laptop.ip("client", *line.split())
    wait_equal(lambda: bound(laptop, second), ["br0"])
    client.send(bytes=100_000)
    assert pairs_of(laptop)
