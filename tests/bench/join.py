# SPDX-License-Identifier: Apache-2.0
"""Join delay: from ESTABLISHED to the MP_JOIN SYN, ours against mptcpd and the in-kernel path manager."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from typing import Any

from tests.bench.rows import Row
from tests.lab.lab import Lab
from tests.lab.service import ROOT
from tests.lab.waiting import wait_equal, wait_for

CGROUP = "bench"
ROUNDS, CONNECTIONS, RATE = 11, 50, 100.0


def start_kernel(lab: Lab) -> None:
    """The in-kernel path manager with one endpoint."""
    lab.ip("client", "mptcp", "endpoint", "add", lab.address("client", 2), "dev", "eth1", "subflow")


def start_mptcpd(lab: Lab) -> None:
    """mptcpd with the plugin second_path.c."""
    lab.sysctl("client", net__mptcp__path_manager="userspace")
    args = ["--plugin-dir", str(ROOT / "build/bench"), "--load-plugins", "second_path"]
    lab.popen(
        ["/usr/libexec/mptcpd", *args, "--path-manager", "second_path"],
        env={"SECOND_PATH": lab.address("client", 2)},
        stdin=subprocess.DEVNULL,
    )


def start_ours(lab: Lab) -> None:
    lab.service({"policies": [{"name": "bench", "cgroup": lab.cgroup(CGROUP), "path_manager": "fullmesh"}]})


CONTENDERS: dict[str, Callable[[Lab], None]] = {
    "kernel": start_kernel,
    "mptcpd": start_mptcpd,
    "ours": start_ours,
}


class Observer:
    """tests/bench/observer.py in the client's namespace of a lab."""

    def __init__(self, lab: Lab) -> None:
        process = lab.popen(
            [sys.executable, "-m", "tests.bench.observer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self.commands, self.answers = process.stdin, process.stdout
        assert self.answers.readline() == "ready\n"

    def delays(self) -> list[float]:
        """Seconds, one per connection joined since the last call."""
        self.commands.write("\n")
        self.commands.flush()
        delays: list[float] = json.loads(self.answers.readline())
        return delays


class Track:
    """Where one contender runs: a client of the lab's echo server, and the observer."""

    def __init__(self, lab: Lab, cgroup: str = CGROUP) -> None:
        self.client = lab.client(cgroup=cgroup)
        self.observer = Observer(lab)

    def warm_up(self) -> None:
        """Open connections until one is joined: the contender is at work."""

        def joined() -> bool:
            self.client.open()
            return bool(self.observer.delays())

        wait_for(joined, "a connection that is joined")
        self.client.close()

    def round(self, connections: int = CONNECTIONS) -> list[float]:
        """Seconds for each connection of a round. AssertionError where one stays without its join."""
        self.observer.delays()
        self.client.open(connections, RATE)
        delays: list[float] = []

        def all_joined() -> int:
            delays.extend(self.observer.delays())
            return len(delays)

        wait_equal(all_joined, connections)
        self.client.close()
        return delays


def compare(names: list[str]) -> dict[str, list[float]]:
    """Median delay in seconds of each round, by contender; their rounds take turns, to share the noise."""
    with ExitStack() as stack:
        tracks = {}
        for name in names:
            lab = stack.enter_context(Lab(client=2, server=1))
            CONTENDERS[name](lab)
            lab.server()
            tracks[name] = Track(lab)
            tracks[name].warm_up()
        medians: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(ROUNDS):
            for name, track in tracks.items():
                medians[name].append(median(track.round()))
    return medians


def bench() -> tuple[list[Row], Any]:
    medians = compare(list(CONTENDERS))
    ours = medians["ours"]
    rows = [
        Row.of(
            f"join delay, ours / {peer}", "ms", [s * 1e3 for s in ours], [s * 1e3 for s in medians[peer]], 1.5
        )
        for peer in ("mptcpd", "kernel")
    ]
    return rows, medians


if __name__ == "__main__":
    for name, rounds in compare(sys.argv[1:] or list(CONTENDERS)).items():
        print(f"{name}: median {median(rounds) * 1e3:.3f} ms; rounds {[f'{s * 1e3:.3f}' for s in rounds]}")
