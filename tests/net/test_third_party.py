# SPDX-License-Identifier: Apache-2.0
"""Path managers from other packages: the documented example, and those that do everything wrong."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.plugins import PLUGINS, install
from tests.lab.scenarios import ALL_ADDRESSES, config, mesh, pairs_of, policy, ports_of, wait_pairs
from tests.lab.service import ROOT, ApiError, Service, command
from tests.lab.waiting import PATIENCE, wait_equal, wait_for

# What a path manager does wrong, and what the history of its session says then.
NONSENSE = {
    "name": "'example.com' is not an IP address",
    "port": "99999999 is not a port",
    "port_text": "'5000' is not a port",
    "family": "its addresses are of different families",
    "elsewhere": "192.0.2.1 is none of the usable local addresses",
    "zero": "0 subflows: at least 1, or leave the pair out",
    "clears": "raised AttributeError: 'tuple' object has no attribute 'clear'",
    "writes": "raised FrozenInstanceError: cannot assign to field 'remote'",
    "pops": "raised AttributeError: 'tuple' object has no attribute 'pop'",
    "exit": "raised SystemExit: good bye",
    "bug": "raised RuntimeError: bug",
}


def test_documented_example(make_lab: Callable[..., Lab], tmp_path: Path) -> None:
    """Installed with pip, named in YAML with its parameter, it opens its subflows."""
    target = install(tmp_path / "installed", ROOT / "docs/examples/per_interface")
    lab = make_lab(client=3, server=1)
    lab.add_address("client", 2, "10.77.2.77")
    lab.server()
    lab.service(
        config(policy(lab, "a", {"per_interface": {"max_interfaces": 2}}), **ALL_ADDRESSES),
        env={"PYTHONPATH": str(target)},
    )
    lab.client(cgroup="a").open()
    remote = lab.address("server", 1)
    wait_pairs(lab, [(lab.address("client", 1), remote), (lab.address("client", 2), remote)])


def test_documented_example_of_metrics(make_lab: Callable[..., Lab], tmp_path: Path) -> None:
    """The interfaces with the lowest metrics have subflows, and others as soon as routes change."""
    target = install(tmp_path / "installed", ROOT / "docs/examples/lowest_metric")
    lab = make_lab(client=3, server=1)
    lab.ip("client", "route", "add", "default", "via", "10.77.2.254", "metric", "300")
    lab.ip("client", "route", "add", "default", "via", "10.77.3.254", "metric", "200")
    lab.server()
    service = lab.service(
        config(policy(lab, "a", {"lowest_metric": {"max_interfaces": 2}})), env={"PYTHONPATH": str(target)}
    )
    lab.client(cgroup="a").open()
    remote, (one, two, three) = lab.address("server", 1), lab.addresses("client")
    wait_pairs(lab, [(one, remote), (three, remote)])
    lab.ip("client", "route", "add", "default", "via", "10.77.2.254", "metric", "100")
    wait_pairs(lab, [(one, remote), (two, remote)])
    there = {a["ip"]: a for a in service.get("/v1/addresses")["addresses"] if a["usable"]}
    assert [(there[ip]["metric"], there[ip]["kind"]) for ip in (one, two, three)] == [
        (0, "veth"),
        (100, "veth"),
        (200, "veth"),
    ]


def test_documented_example_of_rtt(make_lab: Callable[..., Lab], tmp_path: Path) -> None:
    """A subflow whose round-trip time grows becomes a backup while data flows."""
    target = install(tmp_path / "installed", ROOT / "docs/examples/by_rtt")
    lab = make_lab(client=2, server=1)
    lab.server()
    lab.service(config(policy(lab, "a", "by_rtt")), env={"PYTHONPATH": str(target)})
    client = lab.client(cgroup="a")
    client.open()
    remote, (one, two) = lab.address("server", 1), lab.addresses("client")
    wait_pairs(lab, [(one, remote), (two, remote)])
    lab.shape(2, 1)  # its queue makes it slow
    client.begin("send", seconds=120)

    def backups() -> dict[str, bool]:
        return {f.local: f.backup for flows in lab.subflows().values() for f in flows}

    wait_equal(backups, {one: False, two: True}, deadline_s=60)


def complaints(service: Service, name: str) -> list[str]:
    """What the history of the policy's only session says about its path manager."""
    (session,) = service.sessions(policy=name)
    events = service.get(f"/v1/sessions/{session['token']}")["events"]
    return [e["detail"] for e in events if e["event"].startswith("path_manager_")]


def test_nonsense_costs_its_own_sessions_only(lab: Lab, tmp_path: Path) -> None:
    """Each session stays as it is and says why, once; the others get their subflows, and a restart helps."""
    target = install(tmp_path / "installed", PLUGINS / "hostile")
    kinds = (*NONSENSE, "million", "slow")
    bad = [policy(lab, kind, {"nonsense": {"kind": kind, "never": ["tun*"]}}) for kind in (*kinds, "endless")]
    lab.server()
    service = lab.service(config(policy(lab, "good"), *bad), env={"PYTHONPATH": str(target)})
    clients = {kind: lab.client(cgroup=kind) for kind in (*kinds, "good")}
    for client in clients.values():
        client.open()
    good = ports_of(clients["good"])
    wait_for(lambda: pairs_of(lab, good), "a mesh", until=lambda pairs: pairs[0].total() == 2)
    for again in (False, True):
        for kind, complaint in NONSENSE.items():
            (found,) = wait_for(partial(complaints, service, kind), f"a complaint about {kind}")
            assert complaint in found
            assert pairs_of(lab, ports_of(clients[kind]))[0].total() == 1
        limit = "nonsense: asks for 1000001 subflows: a session has at most 64"
        (million,) = service.sessions(policy="million")
        assert limit in complaints(service, "million") or len(million["subflows"]) <= 64
        warnings = [r for r in service.log_lines() if r.get("event") == "path_manager_slow"]
        assert {w["path_manager"] for w in warnings} == {"nonsense"}
        if not again:
            service.terminate()
            service.start()
    # Last: none of the others is asked then.
    lab.client(cgroup="endless").open()
    (found,) = wait_for(partial(complaints, service, "endless"), "the end of the endless one")
    assert found == "nonsense: took longer than 1 s: it is not asked for 60 s"
    metrics = service.request("GET", "/metrics")[1]
    assert 'mptcp_pm_path_manager_seconds_count{path_manager="nonsense"}' in metrics
    assert len(service.log()) < 100_000


def test_program_needs_the_bpf_datapath(lab: Lab) -> None:
    """A path manager in BPF C is refused where programs decide nothing; what was in force stays."""
    service = lab.service(config(policy(lab, "a"), datapath="netlink"))
    program = {"program": {"name": "second_interface", "source": "/nowhere.c"}}
    service.configure(config(policy(lab, "a", program), datapath="netlink"))
    with pytest.raises(ApiError) as refused:
        service.reload()
    (problem,) = refused.value.problem["problems"]
    assert refused.value.status == 422
    assert "needs the bpf datapath: boot the patched kernel" in problem["message"]
    assert service.get("/v1/policies")["policies"][0]["path_manager"]["name"] == "fullmesh"


# What `doctor` says about each, and the configuration where a policy names it.
REFUSED = {
    "import_error": "cannot be loaded from broken_import:Broken (ModuleNotFoundError: No module named",
    "syntax_error": "cannot be loaded from broken_syntax:Broken (SyntaxError:",
    "no_parameters": "Broken needs a frozen dataclass `Parameters`",
    "other": "its entry point is `other` and its class has the name `one`",
    "twins": "both have a path manager `twins`: remove one of them",
}


def test_what_is_installed_later_needs_a_restart(lab: Lab, tmp_path: Path) -> None:
    """A plug-in that came or changed after the start is refused; those that are broken cost nobody."""
    target = install(tmp_path / "installed", PLUGINS / "broken", PLUGINS / "twin")
    lab.server()
    service = lab.service(config(policy(lab, "good")), env={"PYTHONPATH": str(target)})

    def reload(path_manager: Any) -> str:
        """What is wrong with it."""
        service.configure(config(policy(lab, "good"), policy(lab, "other", path_manager)))
        with pytest.raises(ApiError) as refused:
            service.reload()
        assert refused.value.status == 422
        (problem,) = refused.value.problem["problems"]
        return str(problem["message"])

    for name, why in REFUSED.items():
        assert why in reload(name)
    install(target, PLUGINS / "versioned_1")
    installed = "path manager `versioned` was installed after the service started (versioned 1.0)"
    assert reload({"versioned": {"interfaces": 1}}) == f"{installed}: restart the service"
    lab.client(cgroup="good").open()
    wait_pairs(lab, mesh(lab))
    service.terminate()
    service.start()
    assert policy_parameters(service, "other") == {"interfaces": 1}
    install(target, PLUGINS / "versioned_2")
    assert reload({"versioned": {"interfaces": 1}}) == (
        "path manager `versioned` has changed from versioned 1.0 to versioned 2.0 since the service started: "
        "restart the service"
    )
    doctor = lab.run("client", "env", f"PYTHONPATH={target}", *command(), "doctor", "--json")
    checks = {c["name"]: c for c in json.loads(doctor)["checks"] if c["name"].startswith("path_manager_")}
    assert checks["path_manager_versioned"]["found"] == "versioned 2.0"
    assert {n for n in checks if not checks[n]["ok"]} == {f"path_manager_{n}" for n in (*REFUSED, "fullmesh")}


def policy_parameters(service: Service, name: str) -> Any:
    """The parameters of a policy's path manager that are in force."""
    found = service.get(f"/v1/policies/{name}")
    return found["path_manager"]["parameters"]


def test_code_that_never_returns_does_not_keep_the_service(lab: Lab, tmp_path: Path) -> None:
    """It catches whatever ends it: the watchdog hears nothing more, and SIGTERM ends the service."""
    target = install(tmp_path / "installed", PLUGINS / "hostile")
    heard, manager = str(tmp_path / "notify"), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(heard)
    manager.setblocking(False)
    lab.server()
    service = lab.service(
        config(policy(lab, "bad", {"nonsense": {"kind": "stubborn"}})),
        env={"PYTHONPATH": str(target), "NOTIFY_SOCKET": heard, "WATCHDOG_USEC": "200000"},
    )

    def states() -> list[bytes]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(manager.recv(64))
        return found

    wait_for(states, "a fed watchdog", until=lambda found: b"WATCHDOG=1" in found)
    client = lab.client(cgroup="bad")
    client.open()
    wait_for(states, "silence", until=lambda found: not found and quiet(states))
    service.send_signal(signal.SIGTERM)
    assert service.process.wait(20 * PATIENCE) == 1
    (line,) = [r for r in service.log_lines() if r.get("event") == "stopped_by_force"]
    assert "hostile.py" in line["stack"]


def quiet(states: Callable[[], list[bytes]]) -> bool:
    """Whether no state comes for longer than the watchdog allows."""
    time.sleep(0.5)
    return not states()
