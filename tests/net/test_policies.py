# SPDX-License-Identifier: Apache-2.0
"""Each cgroup's connections get the subflows of its policy, and nobody else's do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import config, mesh, pairs_of, policy, ports_of, wait_pairs, wait_reported
from tests.lab.waiting import wait_equal, wait_for


def test_two_policies_and_an_unmanaged_process(lab: Lab) -> None:
    """fullmesh, ndiffports and no policy side by side, each exactly as asked."""
    lab.server()
    service = lab.service(config(policy(lab, "mesh"), policy(lab, "ports", {"ndiffports": {"subflows": 3}})))
    clients = {name: lab.client(cgroup=name) for name in ("mesh", "ports", "other")}
    for client in clients.values():
        client.open(2)
    first = (lab.address("client", 1), lab.address("server", 1))
    want = {"mesh": mesh(lab), "ports": [first] * 3, "other": [first]}
    ports = {name: ports_of(client) for name, client in clients.items()}
    wait_equal(
        lambda: {name: [sorted(c.elements()) for c in pairs_of(lab, ports[name])] for name in clients},
        {name: [sorted(want[name])] * 2 for name in clients},
    )
    reported = {s["token"]: s for s in service.sessions()}
    assert sorted(str(s["policy"]) for s in reported.values()) == ["None"] * 2 + ["mesh"] * 2 + ["ports"] * 2
    wait_equal(lambda: {s["cgroup"] for s in service.sessions()}, {lab.cgroup_path(n) for n in clients})


def test_policy_is_known_in_time(lab: Lab) -> None:
    """The classifier names the policy by ESTABLISHED: nobody waits for the cgroup to be looked up."""
    lab.server()
    service = lab.service(config(policy(lab, "a")))
    lab.cgroup("a")
    wait_for(lambda: lab.cgroup_path("a") in str(service.get("/v1/policies")), "the cgroup a")
    # In the bpf datapath the service sees a subflow when it is there.
    first_sign = "subflow_established" if service.datapath() == "bpf" else "subflow_opening"
    lab.client(cgroup="a").open(20)
    for session in wait_reported(service, 2, sessions=20):
        history = [e["event"] for e in service.get(f"/v1/sessions/{session['token']}")["events"]]
        assert history.index("policy") < history.index(first_sign)
        assert history.index("policy") <= history.index("established") + 1
    assert service.get("/v1/status")["counters"]["classified"] >= 20


def test_announced_port_is_used(lab: Lab) -> None:
    """ADD_ADDR with a port of its own: the subflow goes to that port."""
    other = lab.address("server", 2)
    lab.ip("server", "mptcp", "endpoint", "add", other, "dev", "eth1", "port", "5055", "signal")
    lab.server()
    lab.service(config(policy(lab, "a")))
    lab.client(cgroup="a").open()
    want = {(a, lab.address("server", 1), 5000) for a in lab.addresses("client")}
    want |= {(a, other, 5055) for a in lab.addresses("client")}
    wait_equal(
        lambda: [
            {(f.local, f.remote, f.remote_port) for f in flows if f.state == "ESTAB"}
            for flows in lab.subflows().values()
        ],
        [want],
    )


def test_service_and_kernel_agree(lab: Lab) -> None:
    """What REST says of a session is what ss says: 4-tuples, ids, backup flags."""
    lab.server()
    service = lab.service(config(policy(lab, "a"), addresses={"include": ["eth*"], "backup": ["eth1"]}))
    lab.client(cgroup="a").open(3)
    wait_pairs(lab, mesh(lab), sessions=3)
    reported = wait_reported(service, 2, sessions=3)
    kernel = lab.subflows()
    assert {int(s["token"], 16) for s in reported} == set(kernel)
    for session in reported:
        flows = {
            (f["local"]["ip"], f["local"]["port"], f["remote"]["ip"], f["remote"]["port"]): f
            for f in session["subflows"]
        }
        for flow in kernel[int(session["token"], 16)]:
            ours = flows.pop((flow.local, flow.local_port, flow.remote, flow.remote_port))
            assert (ours["local_id"], ours["remote_id"]) == (flow.local_id, flow.remote_id)
            assert ours["backup"] == flow.backup
            assert ours["bytes_sent"] > 0 or not flow.initial
        assert not flows


def test_innermost_cgroup_wins(lab: Lab) -> None:
    """A policy on a cgroup and another on its child: the child's connections follow the child's."""
    lab.server()
    lab.service(config(policy(lab, "a"), policy(lab, "a/b", "none")))
    outer, inner = lab.client(cgroup="a/c"), lab.client(cgroup="a/b/d")
    inner.open()
    outer.open()
    ports = ports_of(outer)
    wait_equal(lambda: [sorted(c) for c in pairs_of(lab, ports)], [sorted(mesh(lab))])
    assert [c.total() for c in pairs_of(lab, ports_of(inner))] == [1]


def test_cgroup_that_appears_later(lab: Lab) -> None:
    """A glob matches a cgroup made after the start, also nested, and forgets it when it is removed."""
    lab.server()
    service = lab.service(config(policy(lab, "**/job*")))
    lab.cgroup("x/y/job1")
    path = lab.cgroup_path("x/y/job1")
    wait_for(lambda: path in str(service.get("/v1/policies")), f"the cgroup {path}")
    client = lab.client(cgroup="x/y/job1")
    client.open()
    wait_pairs(lab, mesh(lab))
    client.close()
    lab.remove_cgroup("x")
    wait_for(lambda: path not in str(service.get("/v1/policies")), f"no cgroup {path}")


def test_connection_faster_than_the_attachment(lab: Lab) -> None:
    """A process that connects at once in a new cgroup is found by its cgroup id, classifier or not."""
    lab.server()
    lab.service(config(policy(lab, "job*")))
    for i in range(5):
        lab.client(cgroup=f"job{i}").open()
    wait_pairs(lab, mesh(lab), sessions=5)


@pytest.mark.parametrize("family", [4, 6])
def test_address_families(lab: Lab, family: int) -> None:
    """IPv4 connections get IPv4 subflows, IPv6 ones IPv6."""
    lab.server()
    lab.service(config(policy(lab, "a")))
    lab.client(lab.address("server", 1, family), cgroup="a").open()
    wait_pairs(lab, mesh(lab, family))


def test_dual_stack_socket(lab: Lab) -> None:
    """An IPv6 socket with a v4-mapped peer gets IPv4 subflows for its IPv4 remote address."""
    lab.server()
    lab.service(config(policy(lab, "a")))
    lab.client(None, "--dual-stack", cgroup="a").open()
    wait_pairs(lab, mesh(lab))


def test_dual_stack_session_mixes_families(lab: Lab) -> None:
    """An IPv6 socket may have subflows of both families once the server announced both."""
    lab.server(cgroup="srv")
    lab.service(config(policy(lab, "srv", "none", announce=True)), ns="server")
    lab.service(config(policy(lab, "a", {"fullmesh": {"max_subflows": 16}})))
    lab.client(None, "--dual-stack", cgroup="a").open()
    wait_pairs(lab, mesh(lab, 4, 2) + mesh(lab, 6, 2))


@pytest.mark.parametrize(("client", "server"), [(2, 2), (3, 2), (2, 4), (4, 2), (4, 1)])
def test_announce_and_fullmesh(make_lab: Callable[..., Lab], client: int, server: int) -> None:
    """The server announces its addresses, the client meshes with all of them."""
    lab = make_lab(client=client, server=server)
    lab.server(cgroup="srv")
    lab.service(config(policy(lab, "srv", "none", announce=True)), ns="server")
    lab.service(config(policy(lab, "a", {"fullmesh": {"max_subflows": 32}})))
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab, 4, server))


def test_subflows_per_pair_and_cap(lab: Lab) -> None:
    """subflows_per_pair multiplies each pair, max_subflows caps the sum."""
    lab.server()
    lab.service(config(policy(lab, "a", {"fullmesh": {"subflows_per_pair": 2, "max_subflows": 3}})))
    lab.client(cgroup="a").open()
    remote = lab.address("server", 1)
    first, second = lab.addresses("client")
    wait_pairs(lab, [(first, remote), (first, remote), (second, remote)])


def test_as_many_subflows_as_a_policy_may_have(make_lab: Callable[..., Lab]) -> None:
    """64 subflows, eight on each of eight pairs."""
    lab = make_lab(client=4, server=2)
    lab.server(cgroup="srv")
    accept = {"max_subflows": 64}
    lab.service(config(policy(lab, "srv", "none", announce=True, accept=accept)), ns="server")
    lab.service(config(policy(lab, "a", {"fullmesh": {"subflows_per_pair": 8, "max_subflows": 64}})))
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab, 4, 2) * 8)


def test_excluded_interface_is_not_used(make_lab: Callable[..., Lab]) -> None:
    """Neither excluded nor not-included interfaces carry extra subflows; the API says why."""
    lab = make_lab(client=3, server=1)
    lab.server()
    service = lab.service(config(policy(lab, "a"), addresses={"include": ["eth[01]"], "exclude": ["eth1"]}))
    lab.client(cgroup="a").open()
    assert wait_reported(service, 1)
    why = {a["ip"]: a for a in service.get("/v1/addresses")["addresses"]}
    assert why[lab.address("client", 1)]["usable"]
    for link in (2, 3):
        assert not why[lab.address("client", link)]["usable"]
        assert why[lab.address("client", link)]["why"]


def test_reload_moves_a_cgroup_to_another_policy(lab: Lab) -> None:
    """Living sessions follow: surplus subflows go, missing ones come, no connection breaks."""
    server = lab.server()
    service = lab.service(config(policy(lab, "a", {"ndiffports": {"subflows": 3}})))
    client = lab.client(cgroup="a")
    client.open(2)
    first = (lab.address("client", 1), lab.address("server", 1))
    wait_pairs(lab, [first] * 3, sessions=2)
    service.configure(config(policy(lab, "a")))
    service.reload()
    wait_pairs(lab, mesh(lab), sessions=2)
    service.configure(config(policy(lab, "a", "none")))
    service.reload()
    wait_pairs(lab, [first], sessions=2)
    client.send(bytes=100_000)
    assert len(server.report()) == 2
