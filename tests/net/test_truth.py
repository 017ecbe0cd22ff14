# SPDX-License-Identifier: Apache-2.0
"""The service comes back to the kernel's truth, whatever it missed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import (
    config,
    counter,
    drop,
    mesh,
    noted,
    policy,
    wait_pairs,
    wait_reported,
    wait_usable,
)
from tests.lab.service import Service
from tests.lab.traffic import assert_same_bytes
from tests.lab.waiting import wait_equal, wait_for

# Three events each, of some 800 bytes in the socket's buffer, which is 32 MiB: more than fit.
CONNECTIONS = 18_000


def tokens(service: Service) -> list[int]:
    return sorted(int(s["token"], 16) for s in service.sessions(limit=1000))


def test_lost_events(make_lab: Callable[..., Lab]) -> None:
    """Stopped while more events come than its socket holds, the service sees every session afterwards."""
    lab = make_lab(client=2, server=1)
    lab.server("--sink")
    service = lab.service(config(policy(lab, "a")))
    kept, churn = lab.client(None, "--sink", cgroup="a"), lab.client(None, "--sink", cgroup="b")
    kept.open(5)
    wait_pairs(lab, mesh(lab), sessions=5)
    service.send_signal(signal.SIGSTOP)
    opened = 0
    while opened < CONNECTIONS:
        churn.open(500)
        churn.close()
        opened += 500
    kept.close(2)
    kept.open(4)
    service.send_signal(signal.SIGCONT)
    wait_for(lambda: service.get("/v1/status")["counters"].get("events_lost", 0), "lost events")
    wait_pairs(lab, mesh(lab), sessions=7)
    wait_equal(lambda: tokens(service), sorted(lab.subflows()))
    # It hears what comes next, too.
    kept.open(3)
    wait_pairs(lab, mesh(lab), sessions=10)
    kept.close(1)
    wait_equal(lambda: tokens(service), sorted(lab.subflows()))
    wait_reported(service, 2, 9)
    assert service.ready()


@pytest.mark.parametrize("path_manager", ["fullmesh", "backup", {"ndiffports": {"subflows": 3}}])
def test_a_forbidden_join_after_a_restart(make_lab: Callable[..., Lab], path_manager: Any) -> None:
    """The server's C flag is noted: sock_diag does not tell it."""
    lab = make_lab(client=2, server=1)
    lab.sysctl("server", net__mptcp__allow_join_initial_addr_port=0)
    lab.server()
    service = lab.service(config(policy(lab, "a", path_manager)))
    client = lab.client(cgroup="a")
    client.open(3)
    wait_reported(service, 1, 3)
    wait_for(lambda: "denied" in noted(lab), "a note of the sessions")
    service.kill()
    service.start()
    wait_reported(service, 1, 3)
    client.send(bytes=1000)
    lab.add_address("client", 2, "10.77.3.77")
    wait_usable(service, "10.77.3.77")
    assert lab.established() == [1, 1, 1]
    assert counter(lab, "server", "MPTcpExtMPJoinSynRx") == 0


def test_a_link_that_went_down_while_the_service_was_dead(lab: Lab) -> None:
    """Its address was noted as seen up: its subflows are closed, as if the service had seen it go."""
    lab.server()
    service = lab.service(config(policy(lab, "a")))
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab))
    wait_for(lambda: lab.address("client", 2) in noted(lab).get("seen_up", []), "a note of the address")
    service.kill()
    lab.set_link("client", 2, up=False)
    service.start()
    wait_pairs(lab, mesh(lab)[:1])


def test_address_ids_outlive_the_service(make_lab: Callable[..., Lab]) -> None:
    """An address keeps its id: the peer knows it by that."""
    lab = make_lab(client=3, server=1)
    lab.server()
    service = lab.service(config(policy(lab, "a")))
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab))

    def ids() -> dict[str, int]:
        return {f.local: f.local_id for fs in lab.subflows().values() for f in fs if not f.initial}

    before = ids()
    wait_for(lambda: len(noted(lab).get("address_ids", {})) >= 3, "a note of the ids")
    service.kill()
    lab.del_address("client", 1, lab.address("client", 1))
    service.start()
    lab.client(lab.address("server", 1), "--bind", lab.address("client", 2), cgroup="a").open()
    wait_for(ids, "a join from the third link", until=lambda found: lab.address("client", 3) in found)
    assert ids()[lab.address("client", 3)] == before[lab.address("client", 3)]


@pytest.mark.parametrize("path_manager", ["fullmesh", "backup", "none"])
@pytest.mark.parametrize("asleep", [True, False])
def test_suspend_and_resume(make_lab: Callable[..., Lab], path_manager: str, asleep: bool) -> None:
    """All links went and came back at once, and every NAT on the way forgot every subflow."""
    lab = make_lab(client=2, server=1)
    server = lab.server()
    service = lab.service(config(policy(lab, "a", path_manager)))
    client = lab.client(cgroup="a")
    client.open(3)
    wait_reported(service, 1 if path_manager == "none" else 2, 3)
    flows = [flow for of_session in lab.subflows().values() for flow in of_session]
    if asleep:
        service.send_signal(signal.SIGSTOP)
    for link in (1, 2):
        lab.set_link("client", link, up=False)
    if not asleep:
        wait_for(
            lambda: [a["ip"] for a in service.get("/v1/addresses")["addresses"] if a["usable"]],
            "no usable address",
            until=lambda ips: ips == [],
        )
    for flow in flows:
        drop(lab, flow)
    for link in (1, 2):
        lab.set_link("client", link, up=True)
    if asleep:
        service.send_signal(signal.SIGCONT)
    client.send(bytes=20_000, deadline_s=60)
    assert_same_bytes(client, server)
    wait_pairs(lab, mesh(lab)[: 1 if path_manager == "none" else 2], sessions=3, deadline_s=60)
