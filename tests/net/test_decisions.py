# SPDX-License-Identifier: Apache-2.0
"""What the service decides about paths that are refused, dead, forbidden or not its own business."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.oracle import Flow
from tests.lab.scenarios import (
    ALL_ADDRESSES,
    blackhole,
    config,
    counter,
    mesh,
    pairs_of,
    peer_path_manager,
    policy,
    wait_pairs,
    wait_reported,
    wait_usable,
)
from tests.lab.service import Service
from tests.lab.waiting import wait_equal, wait_for


def count_events(service: Service, event: str) -> int:
    """How often a word is in the history of the only session."""
    (session,) = service.sessions()
    return sum(e["event"] == event for e in service.get(f"/v1/sessions/{session['token']}")["events"])


def failed(service: Service) -> list[dict[str, Any]]:
    """Pairs of the only session that could not be opened."""
    (session,) = wait_for(service.sessions, "a session")
    return list(session["failed"])


def heal(lab: Lab, *selector: str, family: int = 4) -> None:
    lab.ip("net", f"-{family}", "rule", "del", "pref", "5", *selector, "blackhole")


def flows(lab: Lab, ns: str = "client") -> list[Flow]:
    """The established subflows of the only session."""
    found = [f for fs in lab.subflows(ns).values() for f in fs]
    return [f for f in found if f.state == "ESTAB"]


# Refused joins


@pytest.mark.parametrize("family", [4, 6])
def test_a_peer_at_its_limit_is_asked_more_and_more_rarely(make_lab: Callable[..., Lab], family: int) -> None:
    """Each refused join looks established for a moment: that clears no backoff, and the reason says it."""
    lab = make_lab(client=4, server=1, limit=1)
    lab.server()
    service = lab.service(config(policy(lab, "a")))
    lab.client(lab.address("server", 1, family), cgroup="a").open()

    def refused() -> list[dict[str, Any]]:
        found = [f for f in failed(service) if f["failures"] >= 2]
        assert all("refused by the peer (its subflow limit?)" in f["reason"] for f in found)
        return found

    wait_for(refused, "two pairs refused twice", until=lambda found: len(found) == 2)
    joins = counter(lab, "server", "MPTcpExtMPJoinSynRx")
    by_programs = 3 if service.datapath() == "bpf" else 0  # RETRIES of a program, per session
    assert joins <= 1 + 2 * 3 + by_programs
    wait_equal(lambda: len(flows(lab)), 2)


def test_a_join_that_we_refuse_costs_no_plan(lab: Lab) -> None:
    """The session of a server that closes joins is not planned for each of them."""
    lab.server(cgroup="srv")
    service = lab.service(config(policy(lab, "srv", "none", accept={"max_subflows": 1})), ns="server")
    lab.service(config(policy(lab, "a", {"ndiffports": {"subflows": 3}})))
    lab.client(cgroup="a").open()
    wait_for(lambda: service.get("/v1/status")["counters"].get("joins_refused", 0) >= 2, "two refused joins")
    wait_equal(lambda: lab.established("server"), [1])


# Addresses that are not lost


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("path_manager", ["none", "fullmesh"])
def test_an_address_that_is_on_no_interface_is_left_alone(
    make_lab: Callable[..., Lab], path_manager: str, family: int
) -> None:
    """AnyIP (a local route to a prefix): no run saw the address up, and the kernel routes it as local."""
    lab = make_lab(client=2, server=1)
    anyip, prefix = ("192.0.2.1", "192.0.2.0/24") if family == 4 else ("2001:db8::1", "2001:db8::/64")
    server_ip, option = lab.address("server", 1, family), f"-{family}"
    lab.ip("server", option, "route", "add", "local", prefix, "dev", "lo")
    lab.ip("net", option, "route", "add", prefix, "via", server_ip)
    lab.server(cgroup="srv")
    service = lab.service(config(policy(lab, "srv", path_manager)), ns="server")
    lab.service(config(policy(lab, "a")))
    client = lab.client(anyip, cgroup="a")
    client.open()
    wait_for(lambda: flows(lab, "server"), "two subflows", until=lambda found: len(found) == 2)
    before = {(f.remote, f.remote_port) for f in flows(lab, "server")}
    lab.add_address("server", 1, "10.77.1.77")
    wait_for(
        lambda: [a["ip"] for a in service.get("/v1/addresses")["addresses"]],
        "the new address",
        until=lambda ips: "10.77.1.77" in ips,
    )
    client.send(bytes=100_000)
    assert {(f.remote, f.remote_port) for f in flows(lab, "server")} == before


def test_an_address_that_is_routed_as_local_no_more_is_lost(make_lab: Callable[..., Lab]) -> None:
    """The local route goes: the session cannot go on there, and the subflow is closed once another works."""
    lab = make_lab(client=1, server=2)
    lab.ip("server", "route", "add", "local", "10.99.0.0/24", "dev", "lo")
    lab.ip("net", "route", "add", "10.99.0.0/24", "via", lab.address("server", 1))
    lab.server(cgroup="srv")
    lab.service(config(policy(lab, "srv", "none", announce=True)), ns="server")
    lab.service(config(policy(lab, "a")))
    lab.client("10.99.0.1", cgroup="a").open()
    wait_for(
        lambda: {f.remote for f in flows(lab)},
        "subflows to the announced addresses",
        until=lambda found: {*lab.addresses("server")} <= found,
    )
    lab.ip("server", "route", "del", "local", "10.99.0.0/24", "dev", "lo")
    lab.add_address("server", 1, "10.77.1.77")
    wait_for(
        lambda: {f.local for f in flows(lab, "server")},
        "no subflow from the lost address",
        until=lambda found: "10.99.0.1" not in found,
    )


# Which pairs may be opened


@pytest.mark.parametrize("path_manager", ["none", "fullmesh", "backup"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_server_does_not_dial_its_client(lab: Lab, path_manager: str, family: int) -> None:
    """The client roams; its old ephemeral port may be somebody else's by now."""
    lab.server(cgroup="srv")
    service = lab.service(config(policy(lab, "srv", path_manager)), ns="server")
    lab.service(config(policy(lab, "a")))
    lab.client(lab.address("server", 1, family), cgroup="a").open()
    wait_pairs(lab, mesh(lab, family))
    lab.del_address("client", 1, lab.address("client", 1, family))
    wait_pairs(lab, [(lab.address("server", 1, family), lab.address("client", 2, family))], ns="server")
    wait_reported(service, 1)
    lab.add_address("server", 1, "10.77.1.77")  # one more look at the session
    wait_for(
        lambda: [a["ip"] for a in service.get("/v1/addresses")["addresses"]],
        "the new address",
        until=lambda ips: "10.77.1.77" in ips,
    )
    assert counter(lab, "server", "MPTcpExtMPJoinSynTx") == 0
    assert failed(service) == []


@pytest.mark.parametrize("path_manager", ["fullmesh", "backup"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_denied_address_is_not_joined_after_the_initial_subflow_went(
    make_lab: Callable[..., Lab], path_manager: str, family: int
) -> None:
    """The server set the C flag: nothing joins its initial address, also not the initial pair again."""
    lab = make_lab(client=2, server=2)
    lab.sysctl("server", net__mptcp__allow_join_initial_addr_port=0)
    lab.server(cgroup="srv")
    server = lab.service(config(policy(lab, "srv", "none", announce=True)), ns="server")
    service = lab.service(config(policy(lab, "a", path_manager)))
    client = lab.client(lab.address("server", 1, family), cgroup="a")
    client.open()
    # An IPv6 socket has IPv4 subflows too: two local addresses with each of three announced ones.
    extra = 1 if path_manager == "backup" else 2 if family == 4 else 6
    wait_for(lambda: len(flows(lab)) == 1 + extra, "joins to the announced address")
    (session,) = server.sessions()
    (initial,) = [s["id"] for s in session["subflows"] if s["origin"] == "initial"]
    server.delete(f"/v1/sessions/{session['token']}/subflows/{initial}")
    wait_for(lambda: [f for f in flows(lab) if f.initial], "no initial subflow", until=lambda f: f == [])
    joins = counter(lab, "server", "MPTcpExtMPJoinSynRx")
    client.send(seconds=3, rate=10_000)  # the first retry would come after a second
    assert lab.address("server", 1, family) not in {f.remote for f in flows(lab)}
    assert counter(lab, "server", "MPTcpExtMPJoinSynRx") == joins
    assert failed(service) == []


@pytest.mark.parametrize("family", [4, 6])
def test_a_remote_that_the_peer_removed_is_not_wanted(make_lab: Callable[..., Lab], family: int) -> None:
    """RM_ADDR of id 0: the place of the cap goes to the announced address, and the session lives."""
    lab = make_lab(client=2, server=2)
    with peer_path_manager(lab) as server:
        lab.server()
        service = lab.service(config(policy(lab, "a", {"fullmesh": {"max_subflows": 2}})))
        lab.client(lab.address("server", 1, family), cgroup="a").open()
        wait_for(lambda: len(flows(lab)) == 2, "two subflows")
        (token,) = lab.subflows("server")
        other = lab.address("server", 2, family)
        server.announce(token, other, 2)
        wait_for(
            lambda: [r["ip"] for r in service.sessions()[0]["remote_addresses"]],
            "the announced address",
            until=lambda ips: other in ips,
        )
        server.withdraw(token, 0)
        want = [(a, other) for a in lab.addresses("client", family)]
        wait_pairs(lab, want)
        assert [f for f in failed(service) if f["remote"] != other] == []


def test_a_join_that_the_kernel_dropped_silently_is_noticed(make_lab: Callable[..., Lab]) -> None:
    """RM_ADDR of id 0 while a join is in SYN_SENT: no event tells, the comparison with the kernel does."""
    lab = make_lab(client=2, server=1)
    blackhole(lab, "from", lab.address("client", 2))
    with peer_path_manager(lab) as server:
        lab.server()
        service = lab.service(config(policy(lab, "a")))
        lab.client(cgroup="a").open()
        wait_for(
            lambda: [f.state for fs in lab.subflows().values() for f in fs],
            "a join without an answer",
            until=lambda states: "SYN-SENT" in states,
        )
        (token,) = lab.subflows("server")
        server.withdraw(token, 0)
        wait_for(
            lambda: [s["state"] for s in service.sessions()[0]["subflows"]],
            "no subflow still opening",
            until=lambda states: "opening" not in states,
        )


# Link-local addresses


@pytest.mark.parametrize("link_local", [True, False])
def test_a_session_between_link_local_addresses(make_lab: Callable[..., Lab], link_local: bool) -> None:
    """Its pairs are link-local on the same interface: no global address is ever tried with it."""
    lab = make_lab(client=2, server=2)
    server_ll = _link_local(lab, "server")
    lab.server(cgroup="srv")
    addresses = {"include": ["eth*"], "link_local": link_local}
    service = lab.service(
        {"addresses": addresses, "policies": [policy(lab, "a", {"ndiffports": {"subflows": 2}})]}
    )
    lab.client(f"{server_ll}%eth0", cgroup="a").open()
    wait_pairs(lab, [(_link_local(lab, "client"), server_ll)] * 2)
    wait_reported(service, 2)
    assert failed(service) == []


def test_fullmesh_of_a_link_local_session(make_lab: Callable[..., Lab]) -> None:
    """`link_local: true`: the same interface's other link-local address makes a pair, bound to it."""
    lab = make_lab(client=2, server=1)
    server_ll, client_ll, other = _link_local(lab, "server"), _link_local(lab, "client"), "fe80::77"
    lab.ip("client", "addr", "add", f"{other}/64", "dev", "eth0", "nodad")
    lab.server(cgroup="srv")
    service = lab.service({"addresses": {"link_local": True, "all": True}, "policies": [policy(lab, "a")]})
    lab.client(f"{server_ll}%eth0", cgroup="a").open()
    wait_pairs(lab, [(client_ll, server_ll), (other, server_ll)])
    assert failed(service) == []


def _link_local(lab: Lab, side: str) -> str:
    for line in lab.ip(side, "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link").splitlines():
        return line.split()[3].split("/")[0]
    raise AssertionError("no link-local address")


# Sessions that need nothing


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "own"])
def test_a_host_with_itself_wants_one_subflow(lab: Lab, host: str) -> None:
    """Loopback, and an own address: every path would be the same one."""
    target = lab.address("client", 1) if host == "own" else host
    lab.server(ns="client", cgroup="srv")
    service = lab.service(config(policy(lab, "a"), policy(lab, "srv", announce=True), **ALL_ADDRESSES))
    lab.client(target, cgroup="a").open()
    wait_for(service.sessions, "both ends", until=lambda found: len(found) == 2)
    lab.add_address("client", 2, "10.77.2.77")
    wait_usable(service, "10.77.2.77")
    assert [len(s["subflows"]) for s in service.sessions()] == [1, 1]
    assert [s["failed"] for s in service.sessions()] == [[], []]


# Operators


@pytest.mark.parametrize("asked", [None, True, False])
def test_a_subflow_by_hand_gets_the_flag_of_its_interface(lab: Lab, asked: bool | None) -> None:
    """`addresses.backup` holds for `subflow add` too, unless told otherwise."""
    lab.server()
    service = lab.service(
        {"addresses": {"include": ["eth*"], "backup": ["eth1"]}, "policies": [policy(lab, "a", "none")]}
    )
    lab.client(cgroup="a").open()
    (session,) = wait_for(service.sessions, "a session")
    body = {"local": lab.address("client", 2)} | ({} if asked is None else {"backup": asked})
    opened = service.post(f"/v1/sessions/{session['token']}/subflows", body)
    flags = wait_for(
        lambda: [f.backup for f in flows(lab) if f.local == lab.address("client", 2)], "the subflow"
    )
    assert flags == [asked is not False]
    # It was established when the answer came: its name is valid.
    path = f"/v1/sessions/{session['token']}/subflows/{opened['id']}"
    assert service.patch(path, {"backup": asked is False})["backup"] == (asked is False)
    service.delete(path)


# What is announced


@pytest.mark.parametrize(("peer", "announced"), [("10.77.1.2", 1), ("203.0.113.1", 0)])
def test_a_private_address_is_not_announced_to_a_public_peer(
    make_lab: Callable[..., Lab], peer: str, announced: int
) -> None:
    """10.77.2.2 means something else, or nothing, where the client is."""
    lab = make_lab(client=2, server=2)
    lab.ip("client", "addr", "add", "203.0.113.2/24", "dev", "eth0")
    lab.ip("server", "addr", "add", "203.0.113.1/24", "dev", "eth0")
    lab.server(cgroup="srv")
    server = lab.service(config(policy(lab, "srv", "none", announce=True)), ns="server")
    service = lab.service(config(policy(lab, "a")))
    lab.client(peer, cgroup="a").open()
    wait_for(service.sessions, "a session")
    wait_for(server.sessions, "the server's session")
    lab.add_address("server", 2, "203.0.114.1")
    addresses = wait_for(
        lambda: [r["ip"] for r in service.sessions()[0]["remote_addresses"]],
        "the public address",
        until=lambda ips: "203.0.114.1" in ips,
    )
    assert addresses.count("10.77.2.2") == announced
    assert pairs_of(lab)
