# SPDX-License-Identifier: GPL-2.0-only
"""``mptcp-pm restore``: what a service leaves that died for good."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import config, count_programs, policy
from tests.lab.service import command
from tests.lab.waiting import wait_equal


def restore(lab: Lab) -> Any:
    return json.loads(lab.run("client", *command(), "restore", "--json"))


def userspace(lab: Lab) -> bool:
    return lab.read_sysctl("client", "net.mptcp.pm_type") == "1"


@pytest.mark.parametrize("on_exit", ["detach", "keep"])
def test_after_a_kill_without_a_restart(lab: Lab, on_exit: str) -> None:
    """The sysctl goes back once, and new sessions have the endpoints; another bpffs stays as it is."""
    lab.cgroup("a")
    lab.run("client", "ip", "mptcp", "endpoint", "add", lab.address("client", 2), "subflow")
    lab.server()
    service = lab.service(config(policy(lab, "a", "none"), on_exit=on_exit))
    on_netlink = service.datapath() == "netlink"
    programs = count_programs(lab, "a")
    service.kill()
    assert userspace(lab) is on_netlink
    assert sum("net.mptcp" in what for what in restore(lab)["restored"]) == on_netlink
    assert not userspace(lab)
    assert count_programs(lab, "a") == programs
    lab.client().open()
    wait_equal(lambda: lab.established(), [2])
    assert not any("net.mptcp" in what for what in restore(lab)["restored"])
    service.start()  # takes over what is there
    assert userspace(lab) is on_netlink


def test_beside_a_running_service(lab: Lab) -> None:
    """What it has changed stays; also what an earlier one left, which it took over."""
    service = lab.service(config(policy(lab, "a")))
    service.kill()
    service.start()
    before = userspace(lab)
    found = restore(lab)
    assert not any("net.mptcp" in what for what in found["restored"])
    assert userspace(lab) is before
    assert service.ready()
