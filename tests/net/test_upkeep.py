# SPDX-License-Identifier: Apache-2.0
"""What others change while the service runs: programs, pins and sysctls. Set back once, then left alone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pm.linux.bpf import libbpf
from tests.lab.commands import run
from tests.lab.lab import Lab
from tests.lab.scenarios import attached_programs, config, count_programs, mesh, policy, wait_pairs
from tests.lab.service import Service
from tests.lab.waiting import wait_equal, wait_for

OPTIONS = {"user_timeout": {"advertise": "30s"}}
RETURN_1 = bytes.fromhex("b7000000010000009500000000000000")
KINDS = ("classify", "options", "path_manager")


def counters(service: Service) -> dict[str, int]:
    return dict(service.get("/v1/status")["counters"])


def readiness(service: Service) -> tuple[int, list[str]]:
    status, document = service.request("GET", "/readyz")
    return status, document["reasons"]


def logged(service: Service) -> set[str]:
    """The names of the events in its log."""
    return {line.get("event", "") for line in service.log_lines()}


def wait_set_back(service: Service, times: int) -> None:
    wait_equal(lambda: counters(service).get("changes_set_back", 0), times)


def wait_reason(service: Service, words: str) -> None:
    """Until it is not ready, for one reason that has these words in it."""
    status, reasons = wait_for(lambda: readiness(service), f"a reason: {words}", until=lambda r: r[0] != 200)
    assert status == 503
    assert len(reasons) == 1
    assert words in reasons[0]


def programs_of(lab: Lab, kind: str, cgroup: str = "a") -> list[int]:
    """Ids of the programs of a kind on a cgroup."""
    found = attached_programs(lab, cgroup, path_managers=kind == "path_manager")
    return [p["id"] for p in found if p["name"].startswith(kind)]


def links_of(lab: Lab, kind: str) -> list[int]:
    """Ids of the links of a kind's program on the cgroup ``a``."""
    programs, cgroup_id = programs_of(lab, kind), lab.cgroup_id("a")
    return [
        link["id"]
        for link in json.loads(run("bpftool", "-j", "link", "show"))
        if link.get("prog_id") in programs and link["cgroup_id"] == cgroup_id
    ]


def detach(lab: Lab, kind: str) -> None:
    """What another administrator does: bpftool link detach."""
    (link,) = links_of(lab, kind)
    run("bpftool", "link", "detach", "id", str(link))
    assert programs_of(lab, kind) == []


def serve(lab: Lab, **fields: Any) -> Service:
    """A service with programs of all kinds on the cgroup ``a``."""
    lab.server()
    return lab.service(config(policy(lab, "a*", options=OPTIONS, **fields)))


def kinds_of(service: Service) -> list[str]:
    return [kind for kind in KINDS if kind != "path_manager" or service.datapath() == "bpf"]


def connect(lab: Lab, cgroup: str, **arguments: Any) -> None:
    client = lab.client(cgroup=cgroup, **arguments)
    client.open()


def test_detached_program_is_attached_again_once(lab: Lab) -> None:
    """Of each kind. Detached again, it stays so, with the reason; a reload attaches it again."""
    lab.cgroup("a")
    service = serve(lab)
    kinds = kinds_of(service)
    for times, kind in enumerate(kinds, 1):
        detach(lab, kind)
        wait_set_back(service, times)
        assert len(programs_of(lab, kind)) == 1
        assert readiness(service) == (200, [])
    connect(lab, "a")
    wait_pairs(lab, mesh(lab))
    assert [s["policy"] for s in service.sessions()] == ["aany"]
    for kind in kinds:
        detach(lab, kind)
    wait_for(lambda: len(readiness(service)[1]) == len(kinds), "a reason for each")
    status, reasons = readiness(service)
    assert (status, service.get("/v1/status")["reasons"]) == (503, reasons)
    for kind, reason in zip(kinds, reasons, strict=True):
        assert reason.startswith(
            f"the program {kind} on {lab.cgroup_path('a')} was detached; it changed again"
        )
    assert service.get("/v1/policies/aany")["cgroups"] == []
    shutil.rmtree(pins(lab))  # set back at a later look
    wait_set_back(service, 2 * len(kinds))
    assert [programs_of(lab, kind) for kind in kinds] == [[]] * len(kinds)
    service.reload()
    assert [len(programs_of(lab, kind)) for kind in kinds] == [1] * len(kinds)
    assert readiness(service) == (200, [])
    wait_equal(lambda: service.get("/v1/policies/aany")["cgroups"], [lab.cgroup_path("a")])
    assert {"changed_by_others", "set_back", "left_as_it_is"} <= logged(service)


def test_replaced_program_is_ours_again(lab: Lab) -> None:
    """Somebody lets a program of their own take the place of ours in its link."""
    lab.cgroup("a")
    service = serve(lab)
    (ours,) = programs_of(lab, "classify")
    replace_program(lab)
    assert programs_of(lab, "classify") != [ours]
    wait_set_back(service, 1)
    assert programs_of(lab, "classify") == [ours]


def replace_program(lab: Lab) -> None:
    """What another administrator does: BPF_LINK_UPDATE."""
    (pin,) = [path for path in lab.pins() if path.name.startswith("link-")]
    link, program = libbpf.open_pin(pin), libbpf.load_sock_ops("classify_theirs", RETURN_1)
    libbpf.update_link(link, program)
    os.close(link)
    os.close(program)


def pins(lab: Lab) -> Path:
    """The directory with the pins of the lab's only service."""
    (directory,) = {path.parent for path in lab.pins()}
    return directory


def names(lab: Lab) -> set[str]:
    return {path.name for path in lab.pins()}


def test_removed_pins_are_made_again_once(lab: Lab) -> None:
    """All pins, so that a start after a kill finds everything; removed again, they stay away."""
    lab.cgroup("a")
    service = serve(lab)
    before = names(lab)
    shutil.rmtree(pins(lab))
    wait_equal(lambda: names(lab), before)
    wait_set_back(service, len(kinds_of(service)))
    assert readiness(service) == (200, [])
    shutil.rmtree(pins(lab))
    wait_for(lambda: len(readiness(service)[1]) == len(kinds_of(service)), "a reason for each kind")
    lab.cgroup("a2")
    wait_equal(lambda: count_programs(lab, "a2"), count_programs(lab, "a"))
    connect(lab, "a2")
    wait_pairs(lab, mesh(lab))
    assert names(lab) == set()
    service.reload()
    wait_equal(lambda: len(names(lab)), len(before) + len(kinds_of(service)))
    service.kill()
    service.start()
    assert count_programs(lab, "a2") == count_programs(lab, "a")
    service.terminate()
    assert names(lab) == set()
    assert count_programs(lab, "a") == (0, 0)


def test_unmounted_bpffs(lab: Lab) -> None:
    """The pins go with it, later cgroups get their programs all the same; mounted again, it has the pins."""
    lab.cgroup("a")
    service = serve(lab)
    before = names(lab)
    lab.in_mounts("umount", "--lazy", "/sys/fs/bpf")  # the service holds its directory open
    wait_for(lambda: readiness(service)[0] == 503, "a reason")
    lab.cgroup("a2")
    wait_equal(lambda: count_programs(lab, "a2"), count_programs(lab, "a"))
    connect(lab, "a2")
    wait_pairs(lab, mesh(lab))
    lab.in_mounts("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
    wait_equal(lambda: readiness(service), (200, []))
    wait_equal(lambda: len(names(lab)), len(before) + len(kinds_of(service)))


def test_cgroup_that_goes_is_no_change(lab: Lab) -> None:
    """Its programs end with it: nothing is said or set back."""
    lab.cgroup("a")
    service = serve(lab)
    lab.cgroup("a2")
    wait_equal(lambda: count_programs(lab, "a2"), count_programs(lab, "a"))
    lab.remove_cgroup("a2")
    wait_for(lambda: links_of(lab, "classify"), "the link of a2 gone", until=lambda links: len(links) == 1)
    detach(lab, "classify")
    wait_set_back(service, 1)
    assert counters(service)["changes_noticed"] == 1


def test_sysctl_is_set_back_once(lab: Lab) -> None:
    """Another change stays, is shown, and makes the service unready. On bpf it is not ours to set."""
    service = serve(lab)
    if service.datapath() == "bpf":
        check_sysctl_of_programs(lab, service)
    else:
        check_sysctl_of_namespace(lab, service)


def check_sysctl_of_namespace(lab: Lab, service: Service) -> None:
    lab.sysctl("client", net__mptcp__pm_type=0)
    wait_set_back(service, 1)
    assert lab.read_sysctl("client", "net.mptcp.pm_type") == "1"
    connect(lab, "a")
    wait_pairs(lab, mesh(lab))
    lab.sysctl("client", net__mptcp__pm_type=0)
    wait_reason(service, "it changed again")
    assert lab.read_sysctl("client", "net.mptcp.pm_type") == "0"
    assert "=0" in sysctl_shown(service) or "=kernel" in sysctl_shown(service)
    assert "mptcp_pm_ready 0.0" in service.get("/metrics")
    lab.sysctl("client", net__mptcp__pm_type=1)
    wait_equal(lambda: readiness(service), (200, []))
    assert "mptcp_pm_ready 1.0" in service.get("/metrics")
    assert "as_wanted_again" in logged(service)
    lab.sysctl("client", net__mptcp__pm_type=0)
    wait_reason(service, "it changed again")
    service.reload()
    assert lab.read_sysctl("client", "net.mptcp.pm_type") == "1"
    assert readiness(service) == (200, [])


def check_sysctl_of_programs(lab: Lab, service: Service) -> None:
    """Programs claim their sessions whatever it is: it is another's, and shown as it is."""
    lab.sysctl("client", net__mptcp__pm_type=1)
    wait_for(lambda: "=1" in sysctl_shown(service) or "=userspace" in sysctl_shown(service), "the new value")
    connect(lab, "a")
    wait_pairs(lab, mesh(lab))
    assert readiness(service) == (200, [])
    assert lab.read_sysctl("client", "net.mptcp.pm_type") == "1"


def sysctl_shown(service: Service) -> str:
    (check,) = [
        c for c in service.get("/v1/status")["kernel"]["checks"] if c["name"] == "path_manager_sysctl"
    ]
    return str(check["found"])


@pytest.mark.parametrize("family", [4, 6])
def test_mptcp_switched_off(lab: Lab, family: int) -> None:
    """It is not the service's to set: it says so until it is on again."""
    service = serve(lab)
    lab.sysctl("client", net__mptcp__enabled=0)
    wait_reason(service, "net.mptcp.enabled=1")
    assert lab.read_sysctl("client", "net.mptcp.enabled") == "0"
    lab.sysctl("client", net__mptcp__enabled=1)
    wait_equal(lambda: readiness(service), (200, []))
    connect(lab, "a", host=lab.address("server", 1, family))
    wait_pairs(lab, mesh(lab, family))
