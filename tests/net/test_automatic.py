# SPDX-License-Identifier: Apache-2.0
"""`cgroup: auto`: every cgroup that has a socket in the network namespace."""

from __future__ import annotations

import os

from pm.linux.host.cgroups import find_cgroup_root
from pm.linux.netlink.socket_cgroups import cgroups_of_sockets, own_cgroup
from tests.lab.lab import Lab
from tests.lab.netns import inside
from tests.lab.scenarios import config, count_programs, policy
from tests.lab.waiting import wait_equal

AUTO = {"name": "pod", "cgroup": "auto", "path_manager": "fullmesh"}


def test_the_kernel_names_the_cgroups_of_sockets(lab: Lab) -> None:
    """Listeners and connections; those that are known are left out; our own is told by a socket of ours."""
    netns = lab.netns("client")
    assert inside(netns, cgroups_of_sockets) == set()
    lab.server(cgroup="server")
    lab.server(ns="client", cgroup="listener")
    lab.client(cgroup="a/b").open(3)
    listener, connected = lab.cgroup_id("listener"), lab.cgroup_id("a/b")
    assert inside(netns, cgroups_of_sockets) == {listener, connected}
    assert inside(netns, lambda: cgroups_of_sockets([listener])) == {connected}
    assert inside(netns, lambda: cgroups_of_sockets([1, listener, 2])) == {connected}
    assert inside(netns, lambda: cgroups_of_sockets([listener, connected])) == set()
    assert inside(netns, lambda: cgroups_of_sockets([listener, *range(10**9, 10**9 + 5000)])) == {connected}
    assert inside(netns, own_cgroup) in {os.stat(find_cgroup_root()).st_ino, own_cgroup()}


def test_cgroups_are_found_with_their_first_socket(lab: Lab) -> None:
    """An MPTCP session, and a listener of plain TCP; not our own, nor one of another namespace."""
    lab.server(cgroup="elsewhere")
    service = lab.service(config(AUTO, policy(lab, "named", "none")), cgroup="sidecar")
    lab.client(cgroup="app/one").open()
    lab.client(cgroup="named").open()
    wait_equal(
        lambda: sorted((s["policy"], s["cgroup"]) for s in service.sessions()),
        sorted([("pod", lab.cgroup_path("app/one")), ("named", lab.cgroup_path("named"))]),
    )
    lab.server("--tcp", ns="client", cgroup="app/two")
    found = sorted([lab.cgroup_path("app/one"), lab.cgroup_path("app/two")])
    wait_equal(lambda: sorted(service.get("/v1/policies/pod")["cgroups"]), found)
    assert count_programs(lab, "app/two")[0] == 1
    assert count_programs(lab, "sidecar")[0] == count_programs(lab, "elsewhere")[0] == 0
    lab.remove_cgroup("app/two")
    wait_equal(lambda: service.get("/v1/policies/pod")["cgroups"], found[:1])
    service.configure(config({**AUTO, "path_manager": "none"}))
    service.reload()
    named = [lab.cgroup_path("app/one"), lab.cgroup_path("named")]
    wait_equal(lambda: sorted(service.get("/v1/policies/pod")["cgroups"]), sorted(named))
    service.terminate()
    assert lab.pins() == []


def test_where_auto_makes_no_sense(lab: Lab) -> None:
    """Without the cgroup tree: an error that says what to write instead."""
    service = lab.service(config({"name": "x", "cgroup": "/", "path_manager": "none"}, selection="namespace"))
    service.configure(config(AUTO, selection="namespace"))
    status, problem = service.request("POST", "/v1/reload")
    assert status == 422
    assert "`auto` needs the cgroup tree: write `/`" in str(problem)
    service.terminate()
