# SPDX-License-Identifier: Apache-2.0
"""Start, reload, clean exit, sudden death, restart, bursts."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import ALL_ADDRESSES, config, count_programs, mesh, policy, wait_pairs, wait_reported
from tests.lab.service import ApiError
from tests.lab.waiting import wait_equal, wait_for


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_clean_exit(lab: Lab, number: signal.Signals) -> None:
    """The sysctl is restored, no program stays attached, the socket is gone; connections live on."""
    before = lab.read_sysctl("client", "net.mptcp.pm_type")
    server = lab.server()
    service = lab.service(config(policy(lab, "a")))
    # Programs claim their sessions: the namespace keeps the kernel's path manager for all others.
    during = before if service.datapath() == "bpf" else "1"
    assert lab.read_sysctl("client", "net.mptcp.pm_type") == during
    client = lab.client(cgroup="a")
    client.open()
    wait_pairs(lab, mesh(lab))
    assert count_programs(lab, "a") == (1, service.datapath() == "bpf")
    took = service.terminate(number)
    assert took < 2
    assert lab.read_sysctl("client", "net.mptcp.pm_type") == before
    assert count_programs(lab, "a") == (0, 0)
    assert not service.socket_path.exists()
    client.send(bytes=10_000)
    assert len(server.report()) == 1


def test_killed_and_restarted_with_sessions_open(lab: Lab) -> None:
    """After SIGKILL the next start finds the sessions, keeps their subflows and goes on managing them."""
    before = lab.read_sysctl("client", "net.mptcp.pm_type")
    lab.server()
    service = lab.service(config(policy(lab, "a"), **ALL_ADDRESSES))
    client = lab.client(cgroup="a")
    client.open(3)
    wait_pairs(lab, mesh(lab), sessions=3)
    service.kill()
    lab.add_address("client", 2, "10.77.2.77")  # happens while nobody watches
    client.open(2)  # so do these
    service.start()
    wait_pairs(lab, [*mesh(lab), ("10.77.2.77", lab.address("server", 1))], sessions=5)
    assert count_programs(lab, "a") == (1, service.datapath() == "bpf")
    assert {s["policy"] for s in wait_reported(service, 3, sessions=5)} == {"a"}
    service.terminate()
    assert lab.read_sysctl("client", "net.mptcp.pm_type") == before


def test_bad_reload_keeps_the_good_configuration(lab: Lab) -> None:
    """422 with every problem; the status says so; sessions go on as before; a good file heals it."""
    lab.server()
    good = config(policy(lab, "a"))
    service = lab.service(good)
    digest = service.get("/v1/status")["config"]["digest"]
    service.configure("policies: [{name: x, cgroup: relative, path_manager: fullmash}]\nnonsense: 1\n")
    with pytest.raises(ApiError) as e:
        service.reload()
    assert e.value.status == 422
    assert len(e.value.problem["problems"]) == 3
    assert service.get("/v1/status")["config"]["digest"] == digest
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab))
    service.configure(good)
    service.reload()


@pytest.mark.parametrize("how", ["signal", "file"])
def test_reload_by_signal_and_by_file_change(lab: Lab, how: str) -> None:
    """SIGHUP and an atomic replacement of the file both bring the new configuration in force."""
    service = lab.service(config(policy(lab, "a")))
    service.configure(config(policy(lab, "b")))
    if how == "signal":
        service.send_signal(signal.SIGHUP)
    wait_equal(lambda: [p["name"] for p in service.get("/v1/policies")["policies"]], ["b"])


def test_sessions_older_than_the_service(lab: Lab) -> None:
    """Sessions of the kernel's own path manager are shown, and left to it."""
    lab.server()
    client = lab.client(cgroup="a")
    client.open()
    service = lab.service(config(policy(lab, "a")))
    (session,) = wait_for(service.sessions, "a session")
    wait_equal(lambda: service.sessions()[0]["managed"], False)
    assert session["token"] == service.sessions()[0]["token"]
    client.open()
    wait_equal(lambda: sorted(len(f) for f in lab.subflows().values()), [1, 2])


RESET = """
import socket, struct, sys
sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) for _ in range(10)]
for s in sockets:
    s.connect((sys.argv[1], 5000))
    s.send(b"x")
    s.recv(1)
print("open", flush=True)
sys.stdin.readline()
for s in sockets:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
"""


def test_reset_sessions_are_forgotten(lab: Lab) -> None:
    """The kernel sends no CLOSED for a session that the peer reset: it goes all the same, on both ends."""
    lab.server(cgroup="srv")
    services = [
        lab.service(config(policy(lab, "srv", "none")), ns="server"),
        lab.service(config(policy(lab, "a"))),
    ]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = lab.popen([sys.executable, "-c", RESET, lab.address("server", 1)], cgroup="a", **pipes)
    assert process.stdout
    assert process.stdout.readline() == "open\n"
    for service in services:
        wait_reported(service, 2, sessions=10)
    process.communicate("\n")
    wait_equal(lambda: [len(service.sessions()) for service in services], [0, 0], deadline_s=20)


def test_burst_of_2000_connections(lab: Lab) -> None:
    """2,000 connections at once: all get their subflows, and the table is exactly the kernel's."""
    lab.server()
    service = lab.service(config(policy(lab, "a")))
    client = lab.client(cgroup="a")
    client.open(2000, deadline_s=120)
    wait_equal(
        lambda: Counter(sum(f.state == "ESTAB" for f in fs) for fs in lab.subflows().values()),
        {2: 2000},
        deadline_s=60,
    )
    wait_equal(lambda: {int(s["token"], 16) for s in service.sessions(limit=1000)}, set(lab.subflows()))
    assert {s["policy"] for s in service.sessions(limit=1000)} == {"a"}
    client.close()
    wait_equal(lambda: service.sessions(limit=1000), [], deadline_s=60)
