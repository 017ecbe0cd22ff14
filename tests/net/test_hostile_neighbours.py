# SPDX-License-Identifier: GPL-2.0-only
"""What other users of the host can do to the service: owners of delegated cgroups, readers, a full disk."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.lab import Lab, cgroup2_root
from tests.lab.service import Service, command
from tests.lab.waiting import wait_equal


@contextmanager
def nested(top: Path, name: str, levels: int) -> Iterator[None]:
    """A chain of directories, the last of which have no path that the kernel takes."""
    at = [os.open(top, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        for _ in range(levels):
            os.mkdir(name, dir_fd=at[-1])
            at.append(os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at[-1]))
        yield
    finally:
        os.close(at.pop())
        while at:
            os.rmdir(name, dir_fd=at[-1])
            os.close(at.pop())


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
