# SPDX-License-Identifier: Apache-2.0
"""Sockets outlive their cgroup: sessions and listeners keep its policy."""

from __future__ import annotations

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import config, count_programs, mesh, noted, policy, wait_pairs
from tests.lab.service import Service
from tests.lab.waiting import wait_equal, wait_for

HOWS = ("reload", "restart", "kill")


def renew(lab: Lab, service: Service, how: str, cgroup: str, ns: str = "client") -> None:
    """Load the configuration again: in the running service, or in the next one."""
    if how == "reload":
        service.reload()
        return
    if how == "kill":
        # It is killed, so it may lose the last second.
        path = lab.cgroup_path(cgroup)
        wait_for(lambda: path in str(noted(lab, ns).get("cgroups")), f"a note of {path}")
        service.kill()
    else:
        service.terminate()
    service.start()


def policies_of(service: Service) -> list[str | None]:
    return [session["policy"] for session in service.sessions()]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("how", HOWS)
def test_session_keeps_its_policy(lab: Lab, how: str, family: int) -> None:
    """It is still managed: the subflow on a link that dies is closed, and comes back with the link."""
    lab.server()
    service = lab.service(config(policy(lab, "a")))
    client = lab.client(lab.address("server", 1, family), cgroup="a")
    client.open(2)
    wait_pairs(lab, mesh(lab, family), sessions=2)
    wait_for(lambda: lab.cgroup_path("a") in lab.notes(), "the cgroup is noted")
    lab.abandon_cgroup("a")
    renew(lab, service, how, "a")
    wait_equal(lambda: policies_of(service), ["a", "a"])
    lab.set_link("client", 2, up=False)
    wait_pairs(lab, mesh(lab, family)[:1], sessions=2)
    lab.set_link("client", 2, up=True)
    wait_pairs(lab, mesh(lab, family), sessions=2)
    client.send(bytes=10_000)


@pytest.mark.parametrize("how", HOWS)
def test_cgroup_below_that_of_the_policy(lab: Lab, how: str) -> None:
    """No glob is about it, so nobody watches it; its sessions keep the policy of the cgroup above."""
    lab.server()
    service = lab.service(config(policy(lab, "a")))
    client = lab.client(cgroup="a/deep")
    client.open()
    wait_pairs(lab, mesh(lab))
    wait_for(lambda: service.sessions()[0]["cgroup"], "the session's cgroup is known")
    path = lab.cgroup_path("a/deep")
    wait_for(lambda: path in lab.notes(), "the cgroup is noted")  # a kill loses the last second
    lab.abandon_cgroup("a/deep")
    renew(lab, service, how, "a/deep")
    wait_equal(lambda: policies_of(service), ["a"])
    client.send(bytes=10_000)


@pytest.mark.parametrize("how", ["nothing", *HOWS])
def test_listener_keeps_its_rules(lab: Lab, how: str) -> None:
    """What it accepts later is of its policy: joins beyond the limit are refused."""
    lab.server(cgroup="srv")
    rules = config(policy(lab, "srv", "none", accept={"max_subflows": 2}), on_exit="keep")
    service = lab.service(rules, ns="server")
    lab.service(config(policy(lab, "a", {"ndiffports": {"subflows": 4}})))
    lab.abandon_cgroup("srv")
    if how != "nothing":
        renew(lab, service, how, "srv", "server")
    lab.client(cgroup="a").open()
    wait_for(lambda: service.get("/v1/status")["counters"].get("joins_refused", 0) >= 2, "two refused joins")
    wait_equal(lambda: lab.established("server"), [2])
    assert policies_of(service) == ["srv"]


def test_programs_go_with_the_last_socket(lab: Lab) -> None:
    """While a socket lives, the program of its cgroup stays; then nothing is left, and REST shows neither."""
    server = lab.server(cgroup="srv")
    service = lab.service(config(policy(lab, "srv*", "none")), ns="server")
    lab.cgroup("srv-empty")
    wait_equal(lambda: count_programs(lab, "srv-empty"), count_programs(lab, "srv"))
    pins = len(lab.pins())
    lab.abandon_cgroup("srv")
    lab.remove_cgroup("srv-empty")
    wait_equal(lambda: service.get("/v1/policies")["policies"][0]["cgroups"], [])
    kinds = sum((1, service.datapath() == "bpf"))
    wait_equal(lambda: len(lab.pins()), pins - kinds)
    server.process.kill()
    wait_equal(lambda: len(lab.pins()), pins - 2 * kinds)
