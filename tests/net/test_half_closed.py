# SPDX-License-Identifier: Apache-2.0
"""A session that one end has closed can have no other subflow: it is not tried again and again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import ALL_ADDRESSES, policy, wait_usable
from tests.lab.waiting import wait_for

# One end shuts its sending side down; both then wait to be ended.
END = """
import socket, sys
role, host, shuts = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
sock = socket.socket(family, socket.SOCK_STREAM, 262)
if role == "server":
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, 5000))
    sock.listen()
    print("ready", flush=True)
    listener, sock = sock, sock.accept()[0]
else:
    sock.connect((host, 5000))
    sock.sendall(b"x")
sock.recv(1)
if role == "server":
    sock.sendall(b"x")
sys.stdin.readline()
if role == shuts:
    sock.shutdown(socket.SHUT_WR)
else:
    assert sock.recv(1) == b""
print("half-closed", flush=True)
sys.stdin.read()
"""


def end(lab: Lab, role: str, host: str, shuts: str, cgroup: str | None) -> subprocess.Popen[str]:
    return lab.popen(
        [sys.executable, "-c", END, role, host, shuts],
        role,
        cgroup,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("shuts", ["client", "server"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_half_closed_session_is_not_tried_at_every_change(lab: Lab, shuts: str, family: int) -> None:
    """The kernel's ENOTCONN is believed once, and logged once."""
    host = lab.address("server", 1, family)
    service = lab.service({**ALL_ADDRESSES, "policies": [policy(lab, "a")]})
    server = end(lab, "server", host, shuts, None)
    assert line(server) == "ready"
    client = end(lab, "client", host, shuts, "a")
    wait_for(lambda: lab.established(), "two subflows", until=lambda counts: counts == [2])
    for process in (client, server):
        say(process)
    assert [line(client), line(server)] == ["half-closed"] * 2
    for number in range(77, 80):
        ip = f"10.77.2.{number}" if family == 4 else f"fd00:77:2::{number}"
        lab.add_address("client", 2, ip)
        wait_usable(service, ip)
    (session,) = service.sessions()
    refused = [
        e for e in service.get(f"/v1/sessions/{session['token']}")["events"] if "refused" in e["event"]
    ]
    assert len(refused) <= 1
    assert sum(record.get("event") == "subflow_refused" for record in service.log_lines()) <= 1
