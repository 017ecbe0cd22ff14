# SPDX-License-Identifier: Apache-2.0
"""What a peer cannot do: make the service open, accept, log or wait without bounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from pm.errors import KernelRefused
from pm.linux.netlink.mptcp_pm import PathManagerSocket
from tests.lab.capture import SYN, Capture
from tests.lab.lab import Lab
from tests.lab.scenarios import (
    blackhole,
    config,
    counter,
    mesh,
    peer_path_manager,
    policy,
    wait_pairs,
    wait_reported,
)
from tests.lab.service import Service
from tests.lab.waiting import wait_equal, wait_for

CAP = 8


def syns(lab: Lab) -> int:
    """How many subflows the client has in SYN-SENT."""
    return sum(f.state == "SYN-SENT" for fs in lab.subflows().values() for f in fs)


def all_withdrawn(service: Service, peer: PathManagerSocket, token: int) -> bool:
    """Withdraw what the service knows. The kernel drops an RM_ADDR while another one waits to be sent."""
    (session,) = service.sessions()
    left = [remote for remote in session["remote_addresses"] if remote["ip"].startswith("10.77.9.")]
    for remote in left:
        with suppress(KernelRefused):  # known already
            peer.announce(token, remote["ip"], remote["address_id"])
        with suppress(KernelRefused):
            peer.withdraw(token, remote["address_id"])
    return not left


def test_a_peer_that_announces_and_withdraws_addresses(make_lab: Callable[..., Lab]) -> None:
    """However fast it is: the cap counts whatever opens, and a session opens so many per second at most."""
    lab = make_lab(client=2, server=1)
    blackhole(lab, "to", "10.77.9.0/24")
    with peer_path_manager(lab) as peer:
        lab.server()
        limits = {"opens_per_session_per_second": 1}
        service = lab.service(config(policy(lab, "a", {"fullmesh": {"max_subflows": CAP}}), limits=limits))
        lab.client(cgroup="a").open()
        wait_reported(service, 2)
        (token,) = lab.subflows("server")
        began, joins = time.monotonic(), counter(lab, "client", "MPTcpExtMPJoinSynTx")
        for turn in range(400):
            number = 2 + turn % 200
            peer.announce(token, f"10.77.9.{number}", number)
            if turn >= 100:
                peer.withdraw(token, 2 + (turn - 100) % 200)
            if turn % 20 == 0:
                assert syns(lab) <= CAP - 2
        wait_for(lambda: service.get("/v1/status")["counters"].get("opens_delayed"), "opens that wait")
        opened = counter(lab, "client", "MPTcpExtMPJoinSynTx") - joins
        assert 0 < opened <= CAP + (time.monotonic() - began)
        assert syns(lab) <= CAP - 2
        # The session is as it was once the peer stops.
        wait_for(lambda: all_withdrawn(service, peer, token), "an end of all addresses", deadline_s=60)
        wait_equal(lambda: syns(lab), 0, deadline_s=60)
        wait_reported(service, 2)


@pytest.mark.parametrize("family", [4, 6])
def test_announced_addresses_that_are_no_peers(make_lab: Callable[..., Lab], family: int) -> None:
    """No SYN goes to loopback, multicast, link-local or our own addresses; the honest one finds its place."""
    lab = make_lab(client=2, server=2)
    bad = {
        4: ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "169.254.169.254", "9.9.9.9"],
        6: ["::1", "::", "ff02::1", "fe80::9", "2001:db8::9"],
    }[family] + lab.addresses("client", family)
    client = lab.netns("client")
    with peer_path_manager(lab) as peer, Capture(client) as first, Capture(client, "lo") as loopback:
        lab.server()
        remote_addresses = {"deny": ["9.9.9.9/32", "2001:db8::/32"]}
        service = lab.service(
            config(policy(lab, "a", {"fullmesh": {"max_subflows": 4}}), remote_addresses=remote_addresses)
        )
        lab.client(lab.address("server", 1, family), cgroup="a").open()
        (session,) = wait_reported(service, 2)
        (token,) = lab.subflows("server")
        for address_id, ip in enumerate(bad, 2):
            peer.announce(token, ip, address_id)
        honest = lab.address("server", 2, family)
        peer.announce(token, honest, 99)
        wait_pairs(lab, mesh(lab, family, server_links=2))
        segments = first.segments() + loopback.segments()
        ends = {s.destination[0] for s in segments if s.flags & SYN and s.destination[1] == 5000}
        assert ends == {lab.address("server", 1, family), honest}
    events = service.get(f"/v1/sessions/{session['token']}")["events"]
    assert sum(e["event"] == "remote_address_refused" for e in events) == len(bad)


def test_joins_are_limited_without_accept(make_lab: Callable[..., Lab]) -> None:
    """A peer's joins end at the default; it does not decide how much of that is logged or remembered."""
    lab = make_lab(client=1, server=1)
    with peer_path_manager(lab, "client") as peer:
        lab.server(cgroup="srv")
        service = lab.service(config(policy(lab, "srv", "none")), ns="server")
        client = lab.client()
        client.open()
        (session,) = wait_reported(service, 1, policy="srv")
        (token,) = lab.subflows("client")
        command = peer.prepare_subflow(
            lab.address("client", 1), 0, lab.address("server", 1), 5000, backup=False
        )
        for _ in range(300):
            peer.create_subflow(token, command)
        refused = 300 - (CAP - 1)
        wait_equal(lambda: service.get("/v1/status")["counters"].get("joins_refused"), refused)
        wait_equal(lambda: lab.established("server"), [CAP])
        events = [e["event"] for e in service.get(f"/v1/sessions/{session['token']}")["events"]]
        assert events[0] == "created"
        assert "policy" in events
        assert len(service.log().splitlines()) < 20
        client.send(bytes=100_000)
