# SPDX-License-Identifier: Apache-2.0
"""What other users of the host can do to the service: owners of delegated cgroups, readers, a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.lab import Lab, cgroup2_root
from tests.lab.nested import nested
from tests.lab.service import ApiError, Service, UnixConnection, command
from tests.lab.waiting import wait_equal, wait_for


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


@contextmanager
def limited_tasks() -> Iterator[Path]:
    """A cgroup of its own in the hierarchy that limits the number of tasks."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = [Path(m[1]) for m in mounts if m[2] == "cgroup" and "pids" in m[3].split(",")]
    found += [cgroup2_root()] if "pids" in (cgroup2_root() / "cgroup.subtree_control").read_text() else []
    if not found:
        pytest.skip("no controller of pids here")
    directory = found[0] / f"mptcp-pm-test-{os.getpid()}-tasks"
    directory.mkdir()
    try:
        yield directory
    finally:
        for pid in (directory / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: not (directory / "cgroup.procs").read_text(), "the end of what runs there")
        directory.rmdir()


def limited(to: Path) -> list[str]:
    return ["sh", "-c", f'echo $$ >{to}/cgroup.procs && exec "$@"', "sh", *command()]


@pytest.mark.parametrize("tasks", [1, 2, 4, 6])
def test_few_tasks_at_the_start(lab: Lab, tasks: int) -> None:
    """With too few threads or processes to start there is a line that says so, and no traceback."""
    with limited_tasks() as cgroup:
        (cgroup / "pids.max").write_text(str(tasks))
        service = lab.service({"policies": []}, start=False, program=limited(cgroup))
        with pytest.raises(AssertionError, match="ended with"):
            service.start()
        assert "TasksMax" in service.log()
        assert "Traceback" not in service.log()


def test_no_task_left(lab: Lab) -> None:
    """A neighbour took the last one: the service works on, a reload fails, and the end is a good one."""
    with limited_tasks() as cgroup:
        policies = [{"name": "all", "cgroup": lab.cgroup("a"), "path_manager": "fullmesh"}]
        service = lab.service({"policies": policies}, program=limited(cgroup))
        there = (cgroup / "pids.current").read_text()
        (cgroup / "pids.max").write_text(there)
        for path in ("/v1/reload", "/v1/reload/dry-run"):
            with pytest.raises(ApiError, match=r"422.*TasksMax"):
                service.post(path)
        lab.server()
        lab.client(cgroup="a").open()
        lab.wait_subflows(2)
        (cgroup / "pids.max").write_text("max")
        service.reload()
        (cgroup / "pids.max").write_text(there)
        service.terminate()


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
