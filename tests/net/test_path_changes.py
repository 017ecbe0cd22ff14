# SPDX-License-Identifier: Apache-2.0
"""Addresses and links that come and go under living sessions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import ALL_ADDRESSES, config, mesh, pairs_of, policy, wait_pairs
from tests.lab.traffic import assert_same_bytes
from tests.lab.waiting import wait_equal, wait_for


def test_new_address_means_new_subflows(lab: Lab) -> None:
    """An address added under a living session gets its subflow at once."""
    lab.server()
    lab.service(config(policy(lab, "a"), **ALL_ADDRESSES))
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab))
    lab.add_address("client", 2, "10.77.2.77")
    wait_pairs(lab, [*mesh(lab), ("10.77.2.77", lab.address("server", 1))])


def test_lost_address_closes_its_subflows_and_tells_the_peer(lab: Lab) -> None:
    """The subflow goes on both ends (RM_ADDR), and comes back with the address."""
    lab.server()
    lab.service(config(policy(lab, "a")))
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab))
    (client_2, remote) = mesh(lab)[1]
    lab.del_address("client", 2, client_2)
    wait_pairs(lab, mesh(lab)[:1])
    wait_pairs(lab, [(remote, lab.address("client", 1))], ns="server")
    lab.add_address("client", 2, client_2)
    wait_pairs(lab, mesh(lab))


def test_lost_carrier_of_the_initial_link(lab: Lab) -> None:
    """The initial subflow itself is closed while another works, and opened again when its link returns."""
    lab.server()
    lab.service(config(policy(lab, "a")))
    client = lab.client(cgroup="a")
    client.open()
    wait_pairs(lab, mesh(lab))
    lab.set_link("client", 1, up=False)
    wait_pairs(lab, mesh(lab)[1:])
    lab.set_link("client", 1, up=True)
    wait_pairs(lab, mesh(lab), deadline_s=30)


@pytest.mark.parametrize("family", [4, 6])
def test_a_change_of_routes_ends_the_backoff(lab: Lab, family: int) -> None:
    """A pair that a router refused five times would be tried after 16 s; a new route tries it soon."""
    local, server = lab.address("client", 2, family), lab.address("server", 1, family)

    def change_it(verb: str) -> None:
        lab.ip("net", f"-{family}", "rule", verb, "from", local, "to", server, "prohibit", "pref", "50")

    def failures() -> int:
        return max((f["failures"] for s in service.sessions() for f in s["failed"]), default=0)

    change_it("add")
    lab.server("--address", server)
    service = lab.service(config(policy(lab, "a")))
    lab.client(server, cgroup="a").open()
    wait_for(failures, "five failures", until=lambda count: count >= 5, deadline_s=40)
    change_it("del")
    lab.ip("client", "route", "add", "unreachable", "198.51.100.0/24" if family == 4 else "2001:db8:1::/48")
    wait_pairs(lab, mesh(lab, family), deadline_s=10)


def test_only_link_lost_keeps_the_session(make_lab: Callable[..., Lab]) -> None:
    """With no other way the last subflow is kept, and the session lives on when the link returns."""
    lab = make_lab(client=1, server=1)
    server = lab.server()
    service = lab.service(config(policy(lab, "a")))
    client = lab.client(cgroup="a")
    client.open()
    lab.set_link("client", 1, up=False)
    wait_equal(lambda: service.get("/v1/addresses")["addresses"][0]["usable"], False)
    lab.set_link("client", 1, up=True)
    client.send(bytes=100_000, deadline_s=60)
    assert_same_bytes(client, server)


def wait_until_unused(lab: Lab, ip: str) -> None:
    """No session has an established subflow from ``ip`` any more."""
    wait_for(
        lambda: all(ip != local for pairs in pairs_of(lab) for local, _ in pairs), f"no subflow from {ip}"
    )


def test_flaps_under_traffic_lose_no_byte(make_lab: Callable[..., Lab]) -> None:
    """Links and addresses flap while data flow both ways: checksums at both ends agree at the end."""
    lab = make_lab(client=3, server=2)
    server = lab.server(cgroup="srv")
    lab.service(config(policy(lab, "srv", "none", announce=True)), ns="server")
    lab.service(config(policy(lab, "a", {"fullmesh": {"max_subflows": 16}})))
    client = lab.client(cgroup="a")
    client.open(4)
    wait_pairs(lab, mesh(lab, 4, 2), sessions=4)
    client.begin("send", seconds=6, rate=2_000_000)
    for link in (1, 2, 3):
        ip = lab.address("client", link)
        lab.set_link("client", link, up=False)
        wait_until_unused(lab, ip)
        lab.set_link("client", link, up=True)
        lab.del_address("client", 4 - link, lab.address("client", 4 - link))
        lab.add_address("client", 4 - link, lab.address("client", 4 - link))
    client.finish(90)
    assert assert_same_bytes(client, server) > 1_000_000
    wait_pairs(lab, mesh(lab, 4, 2), sessions=4, deadline_s=60)


def test_server_address_lost_is_withdrawn(lab: Lab) -> None:
    """An announced address that goes: the client's subflows to it go, and come back with it."""
    lab.server(cgroup="srv")
    lab.service(config(policy(lab, "srv", "none", announce=True)), ns="server")
    lab.service(config(policy(lab, "a")))
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab, 4, 2))
    lab.del_address("server", 2, lab.address("server", 2))
    wait_pairs(lab, mesh(lab, 4, 1))
    lab.add_address("server", 2, lab.address("server", 2))
    wait_pairs(lab, mesh(lab, 4, 2))


def test_backup_is_promoted_and_demoted(lab: Lab) -> None:
    """The standby loses its backup flag when the primary link goes and gets it back with it."""
    lab.server()
    lab.service(config(policy(lab, "a", "backup")))
    client = lab.client(cgroup="a")
    client.open()
    standby_ip = lab.address("client", 2)

    def standby() -> list[str]:
        return [f.flags for fs in lab.subflows().values() for f in fs if f.local == standby_ip]

    wait_pairs(lab, mesh(lab))
    wait_for(standby, "one subflow with the flag b", until=lambda flags: len(flags) == 1 and "b" in flags[0])
    lab.set_link("client", 1, up=False)
    wait_for(
        standby, "one subflow without the flag b", until=lambda flags: len(flags) == 1 and "b" not in flags[0]
    )
    client.send(bytes=50_000)
    lab.set_link("client", 1, up=True)
    wait_pairs(lab, mesh(lab), deadline_s=30)
    wait_for(standby, "one subflow with the flag b", until=lambda flags: len(flags) == 1 and "b" in flags[0])


@pytest.mark.parametrize(("family", "change"), [(4, "route"), (4, "rule"), (6, "rule")])
def test_a_route_that_returns_is_used(lab: Lab, family: int, change: str) -> None:
    """Where this host's own routing says no, the session says so; nothing is tried until it says yes."""
    local, server = lab.address("client", 2, family), lab.address("server", 1, family)
    broken = {
        "route": ["route", "{}", "unreachable", f"{server}/{32 if family == 4 else 128}", "table", "102"],
        "rule": ["rule", "{}", "from", local, "to", server, "prohibit", "pref", "50"],
    }[change]

    def change_it(verb: str) -> None:
        lab.ip("client", f"-{family}", *(word.format(verb) for word in broken))

    change_it("add")
    lab.server("--address", server)
    service = lab.service(config(policy(lab, "a")))
    lab.client(server, cgroup="a").open()

    def unroutable() -> list[str]:
        return [p["reason"] for s in service.sessions() for p in s["unroutable"]]

    wait_equal(unroutable, [f"no route ({'EHOSTUNREACH' if change == 'route' else 'EACCES'})"])
    assert [s["failed"] for s in service.sessions()] == [[]]
    change_it("del")
    wait_pairs(lab, mesh(lab, family))
