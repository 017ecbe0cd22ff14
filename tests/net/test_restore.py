# SPDX-License-Identifier: Apache-2.0
"""``mptcp-pm restore``: what a service leaves that died for good."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import config, count_programs, policy
from tests.lab.service import command
from tests.lab.waiting import wait_equal

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def restore(lab: Lab, *prefix: str) -> list[str]:
    """What it set back or removed, as kinds of things. AssertionError with its message where it fails."""
    found: Any = json.loads(lab.in_mounts(*prefix, *command(), "restore", "--json", ns="client"))
    return sorted({"sysctl" if "net.mptcp" in what else what.split()[0] for what in found["restored"]})


def programs_of(lab: Lab) -> tuple[int, int]:
    return count_programs(lab, "a")


def userspace(lab: Lab) -> bool:
    return lab.read_sysctl("client", "net.mptcp.pm_type") == "1"


@pytest.mark.parametrize("on_exit", ["detach", "keep"])
def test_after_a_kill_without_a_restart(lab: Lab, on_exit: str) -> None:
    """The sysctl goes back, the programs go unless they were to stay; new sessions have the endpoints."""
    lab.run("client", "ip", "mptcp", "endpoint", "add", lab.address("client", 2), "subflow")
    lab.server()
    lab.cgroup("a")
    service = lab.service(config(policy(lab, "a", "none"), on_exit=on_exit))
    on_netlink = service.datapath() == "netlink"
    programs, pins = programs_of(lab), lab.pins()
    assert any(programs)
    service.kill()
    assert userspace(lab) is on_netlink
    gone = ["programs"] if on_exit == "detach" else []
    assert restore(lab) == gone + ["sysctl"] * on_netlink
    assert not userspace(lab)
    assert programs_of(lab) == ((0, 0) if gone else programs)
    assert lab.pins() == ([] if gone else pins)
    lab.client().open()
    wait_equal(lambda: lab.established(), [2])
    assert restore(lab) == []
    service.start()  # takes over what is there
    assert userspace(lab) is on_netlink
    assert programs_of(lab) == programs


def test_beside_a_running_service(lab: Lab) -> None:
    """What it has changed stays; also what an earlier one left, which it took over."""
    lab.cgroup("a")
    service = lab.service(config(policy(lab, "a")))
    service.kill()
    service.start()
    before = userspace(lab), programs_of(lab), lab.pins()
    assert restore(lab) == []
    assert (userspace(lab), programs_of(lab), lab.pins()) == before
    assert service.ready()


def test_after_a_service_that_kept_its_programs(lab: Lab) -> None:
    """One that ended, and did not die, has left what it was told to."""
    lab.cgroup("a")
    service = lab.service(config(policy(lab, "a"), on_exit="keep"))
    programs = programs_of(lab)
    service.terminate()
    pins = lab.pins()
    assert pins
    restored = restore(lab)
    assert "programs" not in restored
    assert not userspace(lab)
    assert (programs_of(lab), lab.pins()) == (programs, pins)


def test_without_privilege(lab: Lab) -> None:
    """One line that says what to do, for each thing that it may not change; nothing is changed."""
    lab.cgroup("a")
    service = lab.service(config(policy(lab, "a")))
    service.kill()
    before = userspace(lab), lab.pins()
    for _ in range(2):
        with pytest.raises(AssertionError, match=r"mptcp-pm: [^\n]*: run `mptcp-pm restore` as root\n$"):
            restore(lab, *NOBODY)
        assert (userspace(lab), lab.pins()) == before
        lab.sysctl("client", net__mptcp__pm_type=0)  # the programs are left
        before = False, lab.pins()
    assert "programs" in restore(lab)
    assert lab.pins() == []
