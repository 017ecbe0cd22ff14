# SPDX-License-Identifier: Apache-2.0
"""Address ids: the kernel's are learned, and those that it forgot are withdrawn all the same."""

from __future__ import annotations

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import config, counter, mesh, pairs_of, policy, wait_pairs, wait_usable
from tests.lab.service import ApiError, Service
from tests.lab.waiting import wait_equal, wait_for


def only(service: Service) -> str:
    (session,) = wait_for(service.sessions, "a session")
    return str(session["token"])


@pytest.mark.parametrize("family", [4, 6])
def test_an_address_that_the_peer_joined_first(lab: Lab, family: int) -> None:
    """The kernel gave it an id before it was announced: it is announced and withdrawn by that id."""
    lab.server(cgroup="srv")
    server = lab.service(config(policy(lab, "srv", "none")), ns="server")
    service = lab.service(config(policy(lab, "a", "none")))
    lab.client(lab.address("server", 1, family), cgroup="a").open()
    local, remote = lab.address("client", 2, family), lab.address("server", 2, family)
    body = {"local": local, "remote": remote}
    service.post(f"/v1/sessions/{only(service)}/subflows", body)
    wait_for(lambda: pairs_of(lab), "the join", until=lambda found: (local, remote) in found[0])
    server.configure(config(policy(lab, "srv", "none", announce=True)))
    server.reload()
    wait_for(
        lambda: [r["ip"] for r in service.sessions()[0]["remote_addresses"]],
        "the announced address",
        until=lambda ips: remote in ips,
    )
    lab.del_address("server", 2, remote)
    wait_for(lambda: pairs_of(lab), "the join gone", until=lambda found: (local, remote) not in found[0])
    wait_for(
        lambda: [r["ip"] for r in service.sessions()[0]["remote_addresses"]],
        "the address withdrawn",
        until=lambda ips: remote not in ips,
    )


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", ["by hand", "cap", "failed open"])
def test_a_lost_address_is_withdrawn_after_each_kind_of_close(lab: Lab, kind: str, family: int) -> None:
    """SUBFLOW_DESTROY and a failing SUBFLOW_CREATE make the kernel forget the id of the address."""
    lab.server()
    mesh_of = {"fullmesh": {"subflows_per_pair": 2}}
    service = lab.service(config(policy(lab, "a", mesh_of)))
    lab.client(lab.address("server", 1, family), cgroup="a").open()
    wait_pairs(lab, mesh(lab, family) * 2)
    token, local = only(service), lab.address("client", 2, family)
    match kind:
        case "by hand":
            (name, _) = [
                s["id"] for s in service.get(f"/v1/sessions/{token}")["subflows"] if s["local"]["ip"] == local
            ]
            service.delete(f"/v1/sessions/{token}/subflows/{name}")
        case "cap":
            service.configure(config(policy(lab, "a")))
            service.reload()
        case "failed open":
            nowhere = "198.51.100.1" if family == 4 else "2001:db8:ffff::1"
            lab.ip("client", f"-{family}", "route", "add", "prohibit", nowhere, "table", "102")
            with pytest.raises(ApiError, match="EACCES"):
                service.post(f"/v1/sessions/{token}/subflows", {"local": local, "remote": nowhere})
    if kind != "failed open":
        wait_for(lambda: len(lab.subflows()[int(token, 16)]), "a closed one", until=lambda n: n < 4)
    lab.set_link("client", 2, up=False)
    wait_equal(lambda: counter(lab, "server", "MPTcpExtRmAddr"), 1)
    first = (lab.address("server", 1, family), lab.address("client", 1, family))
    wait_for(
        lambda: set(pairs_of(lab, ns="server")[0]), "only the other address", until=lambda p: p == {first}
    )


def test_an_announced_address_is_withdrawn_after_accept_closed_a_join_to_it(lab: Lab) -> None:
    """The peer has one subflow too many: closing it must not make us forget that we announced its address."""
    lab.server(cgroup="srv")
    rules = {"announce": True, "accept": {"max_subflows": 2}}
    server = lab.service(config(policy(lab, "srv", "none", **rules)), ns="server")
    service = lab.service(config(policy(lab, "a")))
    lab.client(cgroup="a").open()
    remote = lab.address("server", 2)
    wait_for(
        lambda: [r["ip"] for r in service.sessions()[0]["remote_addresses"]] if service.sessions() else [],
        "the announced address",
        until=lambda ips: remote in ips,
    )
    wait_for(lambda: server.get("/v1/status")["counters"].get("joins_refused", 0), "a refused join")
    lab.set_link("server", 2, up=False)
    wait_for(
        lambda: [r["ip"] for r in service.sessions()[0]["remote_addresses"]],
        "the address withdrawn",
        until=lambda ips: remote not in ips,
    )


def test_a_refused_announcement_is_tried_again(lab: Lab) -> None:
    """What the kernel refused is not noted as done: it is done once the kernel takes it."""
    lab.server(cgroup="srv")
    server = lab.service(config(policy(lab, "srv", "none", announce=True)), ns="server")
    service = lab.service(config(policy(lab, "a")))
    client = lab.client(cgroup="a")
    client.open(3)
    remote = lab.address("server", 2)
    for flap in range(6):
        lab.set_link("server", 2, up=bool(flap % 2))
        wait_usable(server, remote, usable=bool(flap % 2))
    wait_pairs(lab, mesh(lab, 4, 2), sessions=3, deadline_s=60)
    for session in service.sessions():
        assert [r["ip"] for r in session["remote_addresses"]].count(remote) == 1
