# SPDX-License-Identifier: Apache-2.0
"""The paper's Table 2 and figures 3 and 4: what option programs cost, and how long ours are.

Short measurements, each variant next to one without any program, first and second by turns; a ratio is
within such a pair. Time per byte and per round trip instead of their inverses: a ratio above 1 is a cost.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from pm.linux.bpf import libbpf
from pm.linux.bpf.objects import SOURCES
from tests.bench.option_programs import Programs, Variant
from tests.bench.rows import Interval, Row
from tests.lab.commands import run
from tests.lab.lab import Lab, Side

HERE = Path(__file__).parent
ROUNDS, SECONDS, CONNECTIONS = 15, 0.2, 50
BULK_PORT, SMALL_PORT = 5201, 5202
BPF_STATS_RUN_TIME = 0
# Name -> where the processes talk, and on how many processors they are.
TRACKS = {"loopback": ("loopback", 1), "veth": ("veth", 1), "loopback, 2 CPUs": ("loopback", 2)}
BASELINE = Variant("no program")
VARIANTS = (
    Variant("callbacks", None, None, {"client": "callbacks"}),
    Variant("reserve", None, None, {"client": "reserve"}),
    Variant("insert", 1.03, 1.03, {"client": "insert"}),
    Variant("insert, parse", 1.04, 1.03, {"client": "insert", "server": "parse"}),
    Variant("insert, parse, set", 1.04, 1.03, {"client": "insert", "server": "parse_and_set"}),
    Variant("shipped", 1.01, 1.03, shipped_to={"client": "client", "server": "server"}),
    Variant("shipped, not used", 1.01, 1.01, shipped_to={"client": "elsewhere", "server": "elsewhere"}),
    Variant("delayed ACKs alone", None, None, {"server": "delay_acks"}),
)
# Lines of C in the paper's Table 2.
SIDES: tuple[Side, ...] = ("client", "server")
PAPER_LINES = {"user_timeout": 76, "congestion_control": 92, "initial_window": 76, "delayed_ack": 77}


class Measure(NamedTuple):
    """``limited``: whether the limits are for it. What else runs moves CPU time least."""

    name: str
    unit: str
    limited: bool


# As Track.values has them.
MEASURES = (
    Measure("bulk, CPU", "ms/GB", True),
    Measure("bulk, elapsed", "ms/GB", False),
    Measure("bulk, RTT", "µs", False),
    Measure("small, CPU", "µs", True),
    Measure("small, elapsed", "µs", False),
    Measure("short, CPU", "µs", False),
    Measure("short, elapsed", "µs", False),
)


class Track:
    """Two cgroups, ``client`` and ``server``, whose processes talk over loopback or over veth.

    Each process has its processor: left to the scheduler they are now on one, now on two, where a byte
    costs several times as much.
    """

    def __init__(self, lab: Lab, transport: str, processors: int) -> None:
        self.lab, self.loopback = lab, transport == "loopback"
        usable = sorted(os.sched_getaffinity(0))
        assert processors <= len(usable), f"{processors} processors are needed"
        self.processor: dict[Side, int] = {"client": usable[-1], "server": usable[-processors]}
        self.address = "127.0.0.1" if self.loopback else lab.address("server", 1)
        self.tool = lab.directory / "small_messages"
        run("gcc", "-O2", "-Wall", "-Werror", "-o", str(self.tool), str(HERE / "small_messages.c"))
        for cgroup in ("client", "server", "elsewhere"):
            lab.cgroup(cgroup)
        for side in SIDES:  # or those of short connections use up the ports
            lab.sysctl(self.ns(side), net__ipv4__tcp_max_tw_buckets=0)
        self.programs = Programs(lab, {side: self.ns(side) for side in SIDES})
        self.spoilt = 0  # measurements without a program of ours, while somebody else had some
        self._bytes = 1 << 28
        self._bytes = round(self._bytes * SECONDS / self._bulk()[3])

    def close(self) -> None:
        self.programs.close()

    def ns(self, side: Side) -> Side:
        return "client" if self.loopback else side

    def _talk(self, server: list[str], ready: str, client: list[str]) -> tuple[str, float]:
        """The client's output, and the CPU seconds of both; the server is ready once it says ``ready``."""
        answering = self._start(server, "server")
        assert answering.stdout is not None
        assert any(ready in line for line in answering.stdout), f"{server[0]} is not ready"
        asking = self._start(client, "client")
        assert asking.stdout is not None
        output = asking.stdout.read()
        used_s = cpu_seconds(asking)
        assert asking.returncode == 0, f"{client[0]}: {output}"
        answering.kill()
        return output, used_s + cpu_seconds(answering)

    def _start(self, command: list[str], side: Side) -> subprocess.Popen[str]:
        pinned = ["taskset", "--cpu-list", str(self.processor[side]), *command]
        process: subprocess.Popen[str] = self.lab.popen(
            pinned, self.ns(side), side, stdout=subprocess.PIPE, text=True
        )
        return process

    def _bulk(self) -> tuple[float, float, float, float]:
        """Per gigabyte: CPU time of both processes and time, ms; mean RTT in µs; seconds in all."""
        port = str(BULK_PORT)
        output, used_s = self._talk(
            ["iperf3", "-s", "-p", port, "--forceflush"],
            "listening",
            ["iperf3", "-c", self.address, "-p", port, "-n", str(self._bytes), "-J"],
        )
        end = json.loads(output)["end"]
        received = end["sum_received"]
        gigabytes, seconds = received["bytes"] / 1e9, received["seconds"]
        rtt_us = end["streams"][0]["sender"]["mean_rtt"]
        return used_s * 1e3 / gigabytes, seconds * 1e3 / gigabytes, rtt_us, seconds

    def _small(self, client: str = "client") -> tuple[float, float]:
        """Per round trip, µs: CPU time of both processes, and time; "connector": each on its connection."""
        port, tool = str(SMALL_PORT), str(self.tool)
        output, used_s = self._talk(
            [tool, "server", port],
            "ready",
            [tool, client, self.address, port, str(CONNECTIONS), str(SECONDS)],
        )
        rate = float(output)
        return used_s * 1e6 / (rate * SECONDS), 1e6 / rate

    def values(self, variant: Variant) -> tuple[float, ...]:
        """One of each of MEASURES."""
        with self.programs.in_force(variant):
            self.spoilt += variant is BASELINE and self.programs.foreign()
            return (*self._bulk()[:3], *self._small(), *self._small("connector"))

    def runs(self, variant: Variant) -> list[dict[str, Any]]:
        """Name, nanoseconds per run and number of runs of every program in force, with small messages."""
        with self.programs.in_force(variant):
            before = {
                (side, number): program_info(number)
                for side in SIDES
                for number in self.programs.attached(side)
            }
            statistics = libbpf.library().bpf_enable_stats(BPF_STATS_RUN_TIME)  # until it is closed
            assert statistics >= 0
            try:
                round_trips = SECONDS * 1e6 / self._small()[1]
            finally:
                os.close(statistics)
            found = []
            for (side, number), former in before.items():
                info = program_info(number)
                runs = info.get("run_cnt", 0) - former.get("run_cnt", 0)
                time_ns = info.get("run_time_ns", 0) - former.get("run_time_ns", 0)
                found.append(
                    {
                        "program": f"{info['name']}, {side}",
                        "ns_per_run": time_ns / runs if runs else 0.0,
                        "runs_per_connection": runs / CONNECTIONS,
                        "runs_per_round_trip": runs / round_trips,
                    }
                )
        return found


def program_info(number: int) -> dict[str, Any]:
    info: dict[str, Any] = json.loads(run("bpftool", "-j", "prog", "show", "id", str(number)))
    return info


class Rounds(NamedTuple):
    """Values of a variant and of the baseline next to it, one each per round."""

    ours: list[float]
    baseline: list[float]

    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.baseline, strict=True)]


def measure(track: Track) -> dict[str, dict[str, Rounds]]:
    """Measure (``MEASURES``) -> variant -> rounds."""
    found = {m.name: {variant.name: Rounds([], []) for variant in VARIANTS} for m in MEASURES}

    def add(variant: Variant, ours: Sequence[float], baseline: Sequence[float]) -> None:
        for m, a, b in zip(MEASURES, ours, baseline, strict=True):
            found[m.name][variant.name].ours.append(a)
            found[m.name][variant.name].baseline.append(b)

    for turn in range(ROUNDS):
        # Every other round runs backwards: what was first in its pair is second.
        ordered = VARIANTS if turn % 2 else VARIANTS[::-1]
        for i in range(0, len(ordered), 2):
            first = track.values(ordered[i])
            baseline = track.values(BASELINE)
            add(ordered[i], first, baseline)
            for second in ordered[i + 1 : i + 2]:
                add(second, track.values(second), baseline)
    return found


def limit_of(measure: Measure, variant: Variant) -> float | None:
    if not measure.limited:
        return None
    return variant.bulk_limit if measure.name.startswith("bulk") else variant.small_limit


def compare(track: str, found: dict[str, dict[str, Rounds]]) -> list[Row]:
    return [
        Row.of(f"{track}, {m.name}: {v.name}", m.unit, *found[m.name][v.name], limit_of(m, v))
        for m in MEASURES
        for v in VARIANTS
    ]


def markdown(found: dict[str, dict[str, dict[str, Rounds]]], runs: list[Row]) -> str:
    """The tables of docs/benchmarks-options.md; ``found`` by track."""
    tables = []
    for m in MEASURES:
        usual = [
            median(value for rounds in of_track[m.name].values() for value in rounds.baseline)
            for of_track in found.values()
        ]
        rows = [[f"no program, {m.unit}", *(f"{value:.3g}" for value in usual), ""]]
        for v in VARIANTS:
            limit = limit_of(m, v)
            cells = [cell(of_track[m.name][v.name], limit) for of_track in found.values()]
            rows.append([v.name, *cells, str(limit or "")])
        tables.append(table([m.name, *found, "limit"], rows))
    tables.append(table(["", "", "unit"], [[row.what, f"{row.ours:.3g}", row.unit] for row in runs]))
    return "\n".join(tables)


def table(head: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def cell(rounds: Rounds, limit: float | None) -> str:
    """A ratio's median and its interval, bold where the median is above the limit."""
    low, middle, high = Interval.of(rounds.ratios())
    text = f"{middle:.3f} ({low:.3f} - {high:.3f})"
    return f"**{text}**" if limit and middle > limit else text


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """Wait for the end of the process; the CPU seconds that it used."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def lines_of_code(source: Path) -> int:
    """Lines that are neither blank nor comment."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", source.read_text(), flags=re.DOTALL)
    return sum(bool(line.strip()) for line in text.splitlines())


def table_2() -> list[Row]:
    rows = []
    for plugin, paper in PAPER_LINES.items():
        lines = lines_of_code(SOURCES / f"options/{plugin}.c")
        rows.append(Row(f"C, {plugin} / paper's", "lines", lines, paper, lines / paper, None))
    shared_files = [SOURCES / "options.c", SOURCES / "include/option.h", *SOURCES.glob("option_parts/*.h")]
    shared = sum(map(lines_of_code, shared_files))
    return [*rows, Row.value("C, shared by all plugins", "lines", shared)]


def per_run(track: Track) -> tuple[list[Row], Any]:
    rows, raw = [], {}
    for variant in VARIANTS:
        raw[variant.name] = found = track.runs(variant)
        for program in found:
            if program["runs_per_connection"]:
                who = f"{variant.name}: {program['program']}"
                rows.append(Row.value(who, "ns per run", program["ns_per_run"]))
                rows.append(Row.value(who, "runs per round trip", program["runs_per_round_trip"]))
                if variant.shipped_to:
                    rows.append(Row.value(who, "runs per connection", program["runs_per_connection"]))
    return rows, raw


def bench() -> tuple[list[Row], Any]:
    raw: dict[str, Any] = {}
    compared: list[Row] = []
    spoilt = 0
    for name, (transport, processors) in TRACKS.items():
        with Lab(client=1, server=1) as lab, closing(Track(lab, transport, processors)) as track:
            raw[name] = measure(track)
            compared += compare(name, raw[name])
            spoilt += track.spoilt
            runs, raw_runs = per_run(track)
    print(markdown(raw, runs))
    quiet = Row.value('"no program" with programs of others on this machine', "measurements", spoilt, 0)
    return [*table_2(), quiet, *compared, *runs], {**raw, "runs": raw_runs}
