# SPDX-License-Identifier: Apache-2.0
"""The shipped programs beside their service, without it, and the in-kernel path manager, by turns.

``kernel/run --mem 4G --timeout 1800 -- PYTHON -B -m tests.bench.kernel_join [TURNS]``. Each turn measures
every arm once, every other turn in the opposite order, on one kernel and the same two hosts:

- the delay from the segment that makes a session established at the client to the SYN of its additional
  subflow, on the wire, at half of the most sessions per second that the program reaches without the service;
- how long after the last of these sessions the service has written the records of all of them, counts their
  subflows in its metrics, and lists none of them any more;
- sessions per second without a pause, each open until 31 others came after it.

The arms of one turn are compared; the intervals hold the median ratio with 95 % probability (sign test).
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

from pm.sessions.session import join_counter
from tests.bench.observer import ETH_P_IP, PACKET_OUTGOING, SO_RCVBUFFORCE, SO_TIMESTAMPNS, Connections
from tests.bench.rows import Interval
from tests.bench.turns import turns
from tests.lab.precompiled import precompiled_programs
from tests.lab.service import Service, command
from tests.lab.two_hosts import TwoHosts, exchange
from tests.lab.waiting import wait_for

SECOND = "10.1.0.9"
PROGRAMS = {"fullmesh": "fullmesh", "ndiffports": {"ndiffports": {"subflows": 2}}}
KERNEL = "in-kernel"
RATED = "fullmesh"
DELAYS, RATE_S, OPEN = 100, 2.0, 32


class Arm(NamedTuple):
    """Sessions of this cgroup (``PROGRAMS`` have one each), with the service or without."""

    cgroup: str
    service: bool = False

    def __str__(self) -> str:
        return f"{self.cgroup} + service" if self.service else self.cgroup


class Wire:
    """How long the client's sessions wait for their MP_JOIN, by the timestamps of its packets."""

    def __init__(self, hosts: TwoHosts) -> None:
        with hosts.client.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        self._socket.setblocking(False)
        self._connections = Connections()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def delays_us(self) -> list[float]:
        """Of the sessions joined since the last call."""
        with suppress(BlockingIOError):
            while True:
                data, ancillary, _, address = self._socket.recvmsg(128, 64)
                if address[1] == ETH_P_IP:
                    time_s = int.from_bytes(ancillary[0][2][:8], sys.byteorder) + 1e-9 * int.from_bytes(
                        ancillary[0][2][8:16], sys.byteorder
                    )
                    self._connections.packet(data, address[2] == PACKET_OUTGOING, time_s)
        found, self._connections.delays = self._connections.delays, []
        return [1e6 * delay for delay in found]


class Load:
    """Sessions between the two hosts, made by this process."""

    def __init__(self, hosts: TwoHosts) -> None:
        self._hosts = hosts
        self._listener = hosts.listen()

    @contextmanager
    def _client_of(self, cgroup: str) -> Iterator[None]:
        with self._hosts.client.inside():
            (self._hosts.client.cgroup / cgroup / "cgroup.procs").write_text("0")
            yield

    def _open(self) -> tuple[socket.socket, socket.socket]:
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
        client.connect(("10.1.0.2", 5000))
        server = self._listener.accept()[0]
        exchange(client, server)
        return client, server

    def run(self, cgroup: str, *, rate: float = 0, sessions: int = 0) -> float:
        """``sessions`` at this rate, or as many as possible in ``RATE_S``: how many came per second."""
        waiting: deque[tuple[socket.socket, socket.socket]] = deque()
        with self._client_of(cgroup):
            begin, done = time.monotonic(), 0
            while done < sessions or (not sessions and time.monotonic() - begin < RATE_S):
                if rate:
                    time.sleep(max(0.0, begin + done / rate - time.monotonic()))
                waiting.append(self._open())
                done += 1
                if len(waiting) == OPEN:
                    _close(waiting.popleft())
            per_second = done / (time.monotonic() - begin)
        time.sleep(0.1)
        while waiting:
            _close(waiting.popleft())
        return per_second


def _close(pair: tuple[socket.socket, socket.socket]) -> None:
    for end in pair:
        end.close()


class Beside:
    """The service of the client, which leaves its programs when it ends."""

    def __init__(self, hosts: TwoHosts, directory: Path) -> None:
        self._records = directory / "records.jsonl"
        policies = [
            {"name": name, "cgroup": f"/client/{name}", "path_manager": chosen}
            for name, chosen in PROGRAMS.items()
        ]
        config = {
            "datapath": "bpf",
            "on_exit": "keep",
            "addresses": {"include": ["eth1"], "all": True},
            "records": {"to": "file", "path": str(self._records)},
            "policies": policies,
        }
        prefix = ["nsenter", f"--net=/run/netns/{hosts.client.name}"]
        self.service = Service(directory, config, prefix, subprocess.Popen, command(), start_new_session=True)

    @contextmanager
    def running(self) -> Iterator[Service]:
        self.service.start("--state-directory", "/run/mptcp-pm-bench", deadline_s=60)
        try:
            yield self.service
        finally:
            self.service.terminate()

    def processor_s(self) -> float:
        """Processor time that the service has used."""
        return time.clock_gettime(~self.service.process.pid << 3 | 2)  # CPUCLOCK_SCHED of a process

    def records(self) -> int:
        return self._records.read_bytes().count(b"\n") if self._records.exists() else 0

    def told(self) -> tuple[int, int, int]:
        """Records, established subflows in the metrics, and how many sessions are listed, negative."""
        joined = self.service.get("/v1/status")["counters"].get(join_counter("established"), 0)
        return self.records(), joined, -len(self.service.get("/v1/sessions")["sessions"])

    def wait_told(self, records: int, joined: int) -> float:
        """Seconds until there are so many, and no session is listed."""
        begin, wanted = time.monotonic(), (records, joined, 0)

        def complete(found: tuple[int, int, int]) -> bool:
            return all(a >= b for a, b in zip(found, wanted, strict=True))

        wait_for(self.told, f"{wanted}", until=complete, deadline_s=60)
        return time.monotonic() - begin

    def settle(self) -> None:
        """Wait until it has dealt with all that happened, and is idle."""
        used = [self.processor_s()]

        def idle() -> bool:
            time.sleep(1)
            used.append(self.processor_s())
            return used[-1] - used[-2] < 0.05

        wait_for(idle, "an idle service", deadline_s=60)


class Figures(NamedTuple):
    """Of one arm, by turns: delays in us, sessions per second, us of the service for a session, and
    seconds until all was told.
    """

    delays: list[list[float]]
    rates: list[float]
    service_us: list[float]
    told_s: list[float]

    def median_delay(self, turn: int) -> float:
        return median(self.delays[turn])


def measure(times: int) -> dict[Arm, Figures]:
    with TwoHosts() as hosts, precompiled_programs(), tempfile.TemporaryDirectory() as directory:
        _prepare(hosts)
        load, beside = Load(hosts), Beside(hosts, Path(directory))
        with beside.running():
            load.run(RATED, sessions=200)
        most = load.run(RATED)
        print(f"{most:.0f} sessions per second at most without service: delays at {most / 2:.0f}", flush=True)
        arms = [Arm(name) for name in (KERNEL, *PROGRAMS)], [Arm(name, service=True) for name in PROGRAMS]
        figures = {arm: Figures([], [], [], []) for some in arms for arm in some}
        with Wire(hosts) as wire:

            def turn(some: Sequence[Arm]) -> None:
                for arm in some:
                    wire.delays_us()
                    records, joined, _ = beside.told() if arm.service else (0, 0, 0)
                    load.run(arm.cgroup, rate=most / 2, sessions=DELAYS)
                    if arm.service:
                        figures[arm].told_s.append(beside.wait_told(records + DELAYS, joined + DELAYS))
                    figures[arm].delays.append(wire.delays_us())
                for arm in some:
                    if arm.cgroup in (RATED, KERNEL):
                        used = beside.processor_s() if arm.service else 0
                        figures[arm].rates.append(load.run(arm.cgroup))
                        if arm.service:
                            beside.settle()
                            sessions = figures[arm].rates[-1] * RATE_S
                            figures[arm].service_us.append(1e6 * (beside.processor_s() - used) / sessions)

            for number in range(times):
                for some in arms if number % 2 == 0 else arms[::-1]:
                    ordered = some if number % 2 == 0 else some[::-1]
                    if ordered[0].service:
                        with beside.running():
                            beside.settle()
                            turn(ordered)
                    else:
                        turn(ordered)
                shown = {
                    str(arm): (round(found.median_delay(number)), *map(round, found.rates[number:]))
                    for arm, found in figures.items()
                }
                print(f"turn {number + 1}, us and sessions/s: {shown}", flush=True)
        return figures


def _prepare(hosts: TwoHosts) -> None:
    hosts.client.ip("addr", "add", f"{SECOND}/24", "dev", "eth1")
    hosts.client.mptcp("limits", "set", "subflows", "1")
    hosts.client.mptcp("endpoint", "add", SECOND, "dev", "eth1", "subflow")
    hosts.server.mptcp("limits", "set", "subflows", "1")
    for host in (hosts.client, hosts.server):
        host.sysctl("net.ipv4.ip_local_port_range", "1024 65000")
        host.sysctl("net.ipv4.tcp_max_syn_backlog", 8192)
    for name in (KERNEL, *PROGRAMS):
        (hosts.client.cgroup / name).mkdir()


def report(figures: dict[Arm, Figures]) -> Iterator[str]:
    for arm, found in figures.items():
        joined = [delay for delays in found.delays for delay in delays]
        yield f"{arm}: delay median {median(joined):.0f} us, n={len(joined)}"
        if found.rates:
            least, most = min(found.rates), max(found.rates)
            yield f"{arm}: {median(found.rates):.0f} sessions/s, {least:.0f} to {most:.0f}"
        if found.told_s:
            yield f"{arm}: all is told after {median(found.told_s):.2f} s, {max(found.told_s):.2f} at most"
        if found.service_us:
            yield f"{arm}: the service takes {median(found.service_us):.0f} us of processor for a session"
    for ours, theirs in [
        *((Arm(name), Arm(KERNEL)) for name in PROGRAMS),
        *((Arm(name, service=True), Arm(name)) for name in PROGRAMS),
    ]:
        numbers = range(len(figures[ours].delays))
        ratios = [figures[ours].median_delay(i) / figures[theirs].median_delay(i) for i in numbers]
        yield f"delay, {ours} / {theirs}: {Interval.of(ratios)}, {len(ratios)} pairs"
        if figures[ours].rates and figures[theirs].rates:
            ratios = [a / b for a, b in zip(figures[ours].rates, figures[theirs].rates, strict=True)]
            yield f"sessions/s, {ours} / {theirs}: {Interval.of(ratios)}, {len(ratios)} pairs"


if __name__ == "__main__":
    for line in report(measure(turns(__doc__, 9))):
        print(line)
