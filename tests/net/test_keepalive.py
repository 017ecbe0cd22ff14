# SPDX-License-Identifier: Apache-2.0
"""TCP keepalive of the subflows that this end opens, as the kernel has it (ss -o)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import config, mesh, policy, wait_pairs
from tests.lab.service import Service
from tests.lab.waiting import wait_equal

FAMILIES = pytest.mark.parametrize("family", [4, 6])
UNITS_S = {"ms": 0.001, "sec": 1, "min": 60}
# One hour and more, so that the time that a test takes does not matter.
OURS = {"idle": "2h", "interval": "75s", "count": 9}
OURS_S, THEIRS_S = 7200.0, 20_000.0
APPLICATION = """
import json, socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_STREAM, 262)
def set_options(options):
    for level, name, value in options:
        s.setsockopt(level, name, value)
set_options(json.loads(sys.argv[2]))
s.connect((sys.argv[1], 5000))
s.send(b"x")
s.recv(1)
for line in sys.stdin:
    set_options(json.loads(line))
"""
ON = [1, 9, 1]  # SOL_SOCKET, SO_KEEPALIVE
OFF = [1, 9, 0]
IDLE = [6, 4, int(THEIRS_S)]  # SOL_TCP, TCP_KEEPIDLE


def keepalives(lab: Lab, ns: str = "client") -> dict[str, float | None]:
    """The client's address of each established subflow -> seconds until a probe, rounded up to thousands.

    None without keepalive.
    """
    found: dict[str, float | None] = {}
    end = 2 if ns == "client" else 3
    for line in lab.run(ns, "ss", "-tnoiOH", "state", "established").splitlines():
        if "tcp-ulp-mptcp" not in line:
            continue
        address = line.split()[end].rpartition(":")[0].strip("[]").removeprefix("::ffff:")
        timer = re.search(r"timer:\(keepalive,([\d.]+)(ms|sec|min)", line)
        found[address] = None if timer is None else -(-float(timer[1]) * UNITS_S[timer[2]] // 1000) * 1000
    return found


def rounded(seconds: float) -> float:
    return -(-seconds // 1000) * 1000


OUR, THEIR = rounded(OURS_S), rounded(THEIRS_S)


def expect(lab: Lab, family: int, initial: float | None, joins: float | None) -> None:
    first, *others = lab.addresses("client", family)
    wait_equal(lambda: keepalives(lab), {first: initial, **dict.fromkeys(others, joins)})


def serve(lab: Lab, keepalive: Any = OURS, **fields: Any) -> Service:
    lab.server()
    return lab.service(config(policy(lab, "a", keepalive=keepalive, **fields)))


def run_application(lab: Lab, family: int, *options: list[int]) -> subprocess.Popen[str]:
    """A connection with these socket options; ``set_later`` sets more."""
    command = [sys.executable, "-c", APPLICATION, lab.address("server", 1, family), json.dumps(options)]
    process = lab.popen(command, cgroup="a", stdin=subprocess.PIPE, text=True)
    wait_pairs(lab, mesh(lab, family))
    return process


def set_later(application: subprocess.Popen[str], *options: list[int]) -> None:
    assert application.stdin
    application.stdin.write(json.dumps(options) + "\n")
    application.stdin.flush()


@FAMILIES
def test_joins_of_this_end(lab: Lab, family: int) -> None:
    """They have the policy's. The application's own subflow has none, and none has what a server accepts."""
    lab.server(cgroup="srv")
    lab.service(config(policy(lab, "srv", "none", keepalive=OURS)), ns="server")
    lab.service(config(policy(lab, "a", keepalive=OURS)))
    lab.client(lab.address("server", 1, family), cgroup="a").open()
    wait_pairs(lab, mesh(lab, family))
    expect(lab, family, None, OUR)
    assert keepalives(lab, "server") == dict.fromkeys(lab.addresses("client", family))


def test_default(lab: Lab) -> None:
    """A minute, without a word in the configuration."""
    lab.server()
    lab.service(config(policy(lab, "a")))
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab))
    expect(lab, 4, None, rounded(60))


@FAMILIES
def test_application_before(lab: Lab, family: int) -> None:
    """What it set before the join is left alone, and so are joins that come later."""
    serve(lab)
    run_application(lab, family, ON, IDLE)
    expect(lab, family, THEIR, THEIR)
    lab.set_link("client", 2, up=False)
    wait_pairs(lab, mesh(lab, family)[:1])
    lab.set_link("client", 2, up=True)
    wait_pairs(lab, mesh(lab, family))
    expect(lab, family, THEIR, THEIR)


@FAMILIES
def test_application_after(lab: Lab, family: int) -> None:
    """What it sets later is the kernel's to apply, to all subflows: on, with its own time, and off."""
    serve(lab)
    application = run_application(lab, family)
    expect(lab, family, None, OUR)
    set_later(application, [6, 1, 1])  # TCP_NODELAY: nothing about keepalive
    set_later(application, IDLE, ON)
    expect(lab, family, THEIR, THEIR)
    set_later(application, OFF)
    expect(lab, family, None, None)


@FAMILIES
def test_off(lab: Lab, family: int) -> None:
    """Also in a cgroup whose outer policy has a keepalive: the innermost policy decides."""
    lab.server()
    outer = policy(lab, "a", keepalive=OURS)
    lab.service(config(outer, policy(lab, "a/b", keepalive=False)))
    lab.client(lab.address("server", 1, family), cgroup="a/b").open()
    wait_pairs(lab, mesh(lab, family))
    expect(lab, family, None, None)


def test_inner_policy(lab: Lab) -> None:
    """Its times, and not the outer's."""
    lab.server()
    inner = policy(lab, "a/b", keepalive={**OURS, "idle": f"{THEIRS_S:.0f}s"})
    lab.service(config(policy(lab, "a", keepalive=OURS), inner))
    lab.client(cgroup="a/b").open()
    wait_pairs(lab, mesh(lab))
    expect(lab, 4, None, THEIR)


def test_reload(lab: Lab) -> None:
    """Subflows that open from then on have the new one; living ones keep what they have."""
    service = serve(lab)
    client = lab.client(cgroup="a")
    client.open()
    wait_pairs(lab, mesh(lab))
    expect(lab, 4, None, OUR)
    if service.datapath() == "bpf":
        claimed = service.get("/v1/status")["counters"]["claimed"]
    for keepalive, now in ((False, None), ({**OURS, "idle": f"{THEIRS_S:.0f}s"}, THEIR), (OURS, OUR)):
        service.configure(config(policy(lab, "a", keepalive=keepalive)))
        service.reload()
        lab.set_link("client", 2, up=False)
        wait_pairs(lab, mesh(lab)[:1])
        lab.set_link("client", 2, up=True)
        wait_pairs(lab, mesh(lab))
        expect(lab, 4, None, now)
    if service.datapath() == "bpf":
        assert service.get("/v1/status")["counters"]["claimed"] == claimed
        assert service.sessions()[0]["program"] == "fullmesh"


@FAMILIES
def test_dead_standby(lab: Lab, family: int) -> None:
    """An idle subflow whose path died without a word is closed, and opened again when the path is back."""
    serve(lab, {"idle": "1s", "interval": "1s", "count": 2}, path_manager="backup")
    client = lab.client(lab.address("server", 1, family), cgroup="a")
    client.open()
    wait_pairs(lab, mesh(lab, family))
    standby = lab.address("client", 2, family)
    hole = ("route", "add", "blackhole", standby)
    lab.ip("net", f"-{family}", *hole)
    wait_pairs(lab, mesh(lab, family)[:1])
    lab.ip("net", f"-{family}", "route", "del", "blackhole", standby)
    wait_pairs(lab, mesh(lab, family), deadline_s=60)
    client.send(bytes=10_000)
