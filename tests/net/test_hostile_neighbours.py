# SPDX-License-Identifier: GPL-2.0-only
"""What other users of the host can do to the service: owners of delegated cgroups, readers, a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess

import pytest

from tests.lab.lab import Lab, cgroup2_root
from tests.lab.nested import nested
from tests.lab.service import Service, UnixConnection, command
from tests.lab.waiting import wait_equal


def cli(service: Service, *arguments: str | bytes) -> str:
    """What the command prints about a service."""
    done = subprocess.run(
        [*command(), *arguments, "--socket", str(service.socket_path)], capture_output=True, check=True
    )
    return done.stdout.decode()


def cgroups_of(service: Service, policy: str) -> list[str]:
    found: list[str] = service.get(f"/v1/policies/{policy}")["cgroups"]
    return found


def test_owner_of_a_delegated_cgroup(lab: Lab) -> None:
    """Cgroups too deep, and with names that are not text, cost nobody but those who are in them.

    At the start, as they are made, and on a reload.
    """
    top = lab.cgroup("")
    directory = cgroup2_root() / top[1:]
    lab.cgroup("bad\udcff")  # the byte 0xff
    shown = f"{top}/bad\ufffdff"
    policies = [
        {"name": "all", "cgroup": f"{top}/**", "path_manager": "none"},
        {"name": "strange", "cgroup": shown, "path_manager": "fullmesh"},
    ]
    with nested(directory, "x" * 250, 17):
        service = lab.service({"policies": policies})
        with nested(directory, "d", 80):
            late = lab.cgroup("late")
            wait_equal(lambda: late in cgroups_of(service, "all"), True)
            service.reload()
            assert late in cgroups_of(service, "all")
    assert cgroups_of(service, "strange") == [shown]
    lab.server()
    client = lab.client(cgroup="bad\udcff")
    client.open(1)
    lab.wait_subflows(2)
    wait_equal(lambda: [s["cgroup"] for s in service.sessions(policy="strange")], [shown])
    assert shown in cli(service, "policies").replace("\n", "")
    for written in (shown, os.fsencode(top) + b"/bad\xff"):
        found = json.loads(cli(service, "sessions", "--json", "--cgroup", written))
        assert [s["policy"] for s in found["sessions"]] == ["strange"]
    service.terminate()


def redirected(to: str) -> list[str]:
    """The command with another standard error."""
    return ["sh", "-c", f'exec "$@" {to}', "sh", *command()]


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-", "2>/dev/full <&- >&-"])
def test_no_way_to_write_the_log(lab: Lab, stderr: str) -> None:
    """Without a place for its log the service starts, works, and counts the lines."""
    service = lab.service(
        {"policies": [{"name": "all", "cgroup": lab.cgroup("a"), "path_manager": "fullmesh"}]},
        program=redirected(stderr),
    )
    lab.server()
    client = lab.client(cgroup="a")
    client.open(1)
    lab.wait_subflows(2)
    if "/dev/full" in stderr:
        assert service.get("/v1/status")["counters"]["log_lines_lost"] > 0
    service.terminate()


def test_no_descriptor_left(lab: Lab) -> None:
    """A reload that finds no descriptor left fails, and the service goes on."""
    service = lab.service({"policies": []})
    limits = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
    connection = UnixConnection(service.socket_path)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (5, limits[1]))
    service.send_signal(signal.SIGHUP)

    def reloads_failed() -> bool:
        connection.request("GET", "/v1/status")
        counters = json.loads(connection.getresponse().read())["counters"]
        return "reloads_failed" in counters

    wait_equal(reloads_failed, True)
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, limits)
    service.reload()
    service.terminate()


@pytest.mark.parametrize("files", [16])
def test_few_descriptors_at_the_start(lab: Lab, files: int) -> None:
    """With too few descriptors to start there is a line that says so, and no traceback."""
    service = lab.service(
        {"policies": []}, start=False, program=["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command()]
    )
    with pytest.raises(AssertionError):
        service.start()
    assert "Traceback" not in service.log()
    assert len(service.log().splitlines()) < 4


def test_bodies_that_are_wrong(lab: Lab) -> None:
    """Whatever a body contains, the answer is a 400 with the reason, and no subflow is left behind."""
    service = lab.service({"policies": [{"name": "all", "cgroup": lab.cgroup("a"), "path_manager": "none"}]})
    lab.server()
    client = lab.client(cgroup="a")
    client.open(1)
    lab.wait_subflows(1)
    path = f"/v1/sessions/{service.sessions()[0]['token']}"
    bad: list[dict[str, object]] = [
        {"\ud800": 1},
        {"local": "\ud800"},
        {"local": "fe80::1%eth0"},
        {"local": "0.0.0.0"},
        {"remote": "::"},
        {"remote": "224.0.0.1"},
        {"local": "::ffff:10.77.2.1", "remote": "fd00:77:1::2"},
        {"remote": "fd00:77:1::2"},
    ]
    for body in bad:
        status, problem = service.request("POST", f"{path}/subflows", body)
        assert (status, problem["type"]) == (400, "urn:mptcp-pm:problem:bad-request"), body
    service.post(f"{path}/subflows", {"local": "::ffff:10.77.2.1"})
    lab.wait_subflows(2)
    wait_equal(lambda: [s["local"]["ip"] for s in service.get(path)["subflows"]], ["10.77.1.1", "10.77.2.1"])
    wait_equal(lambda: {s["state"] for s in service.get(path)["subflows"]}, {"established"})
    service.terminate()
