# SPDX-License-Identifier: GPL-2.0-only
"""The paper's Table 2 and figures 3 and 4: what option programs cost, and how long ours are.

Each variant has the baseline beside it in every round, before and after it by turns; ratios are within such
a pair. Time per byte and per round trip instead of their inverses: a ratio above 1 is a cost.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pm.linux import bpf
from pm.linux.bpf_object import SOURCES, BpfObject, compile_object
from pm.linux.cgroups import directory_of, find_cgroup_root
from tests.bench.rows import Row
from tests.net.lab import Lab, Side, run
from tests.net.options import ACCEPT, SEND, with_options

HERE = Path(__file__).parent
ROUNDS, SECONDS, CONNECTIONS = 5, 1, 50
BULK_PORT, SMALL_PORT = 5201, 5202
BASELINE = "no program"
BPF_STATS_RUN_TIME = 0
# As Cost has them: unit, and whether the limits are for it: what else runs on the machine moves the elapsed
# time more than the CPU time. Where nothing else runs, both have the same ratios.
MEASURES = {
    "bulk, elapsed": ("ms/GB", False),
    "bulk, CPU": ("ms/GB", True),
    "small, elapsed": ("µs", False),
    "small, CPU": ("µs", True),
}
# Lines of C in the paper's Table 2.
PAPER_LINES = {"user_timeout": 76, "congestion_control": 92, "initial_window": 76, "delayed_ack": 77}


class Variant(NamedTuple):
    """``programs`` of every_packet.c by side, or ``policies``: cgroup -> options, by side."""

    name: str
    bulk_limit: float | None
    small_limit: float | None
    programs: dict[Side, str] = {}  # noqa: RUF012
    policies: dict[Side, dict[str, Any]] = {}  # noqa: RUF012


VARIANTS = (
    Variant(BASELINE, None, None),
    Variant("insert", 1.03, 1.03, {"client": "insert"}),
    Variant("insert, parse", 1.04, 1.03, {"client": "insert", "server": "parse"}),
    Variant("insert, parse, set", 1.04, 1.03, {"client": "insert", "server": "parse_and_set"}),
    Variant("shipped", 1.01, 1.03, policies={"client": {"client": SEND}, "server": {"server": ACCEPT}}),
    Variant(
        "shipped, not used",
        1.01,
        1.01,
        policies={"client": {"elsewhere": SEND}, "server": {"elsewhere": ACCEPT}},
    ),
)


class Cost(NamedTuple):
    """Of one byte or message: time that passed, and CPU time of both processes, the kernel's included."""

    wall: float
    cpu: float


class Track:
    """Two cgroups, ``client`` and ``server``, whose processes talk over loopback or over veth."""

    def __init__(self, lab: Lab, transport: str, programs: BpfObject, tool: Path) -> None:
        self.lab, self.transport, self.programs, self.tool = lab, transport, programs, tool
        self.loopback = transport == "loopback"
        self.address = "127.0.0.1" if self.loopback else lab.address("server", 1)
        for cgroup in ("client", "server", "elsewhere"):
            lab.cgroup(cgroup)

    def ns(self, side: Side) -> Side:
        return "client" if self.loopback else side

    @contextmanager
    def in_force(self, variant: Variant) -> Iterator[None]:
        with ExitStack() as stack:
            for side, program in variant.programs.items():
                stack.enter_context(self._attached(side, program))
            policies: dict[Side, dict[str, Any]] = {}
            for side, options in variant.policies.items():
                # Over loopback one service has both ends; both name `elsewhere`: the server's options count.
                policies.setdefault(self.ns(side), {}).update(options)
            for ns, options in policies.items():
                stack.callback(self.lab.service(with_options(self.lab, options), ns=ns).terminate)
            yield

    @contextmanager
    def _attached(self, side: Side, name: str) -> Iterator[None]:
        log_file = self.lab.directory / "verifier.log"
        program = self.programs.load(name, maps={}, constants={}, log_file=log_file)
        with self._cgroup(side) as cgroup:
            link = bpf.link_cgroup(program, cgroup)
        try:
            yield
        finally:
            os.close(link)
            os.close(program)

    @contextmanager
    def _cgroup(self, side: Side) -> Iterator[int]:
        path = directory_of(find_cgroup_root(), self.lab.cgroup_path(side))
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _talk(self, server: list[str], ready: str, client: list[str]) -> tuple[str, float]:
        """The client's output, and the CPU seconds of both; the server is ready once it says ``ready``."""
        answering = self.lab.popen(server, self.ns("server"), "server", stdout=subprocess.PIPE, text=True)
        assert answering.stdout is not None
        assert any(ready in line for line in answering.stdout), f"{server[0]} is not ready"
        asking = self.lab.popen(client, "client", "client", stdout=subprocess.PIPE, text=True)
        assert asking.stdout is not None
        output = asking.stdout.read()
        used_s = cpu_seconds(asking)
        assert asking.returncode == 0, f"{client[0]}: {output}"
        answering.kill()
        return output, used_s + cpu_seconds(answering)

    def bulk(self) -> Cost:
        """Milliseconds per gigabyte."""
        port = str(BULK_PORT)
        output, used_s = self._talk(
            ["iperf3", "-s", "-p", port, "--forceflush"],
            "listening",
            ["iperf3", "-c", self.address, "-p", port, "-t", str(SECONDS), "-J"],
        )
        received = json.loads(output)["end"]["sum_received"]
        gigabytes = received["bytes"] / 1e9
        return Cost(received["seconds"] * 1e3 / gigabytes, used_s * 1e3 / gigabytes)

    def small(self) -> Cost:
        """Microseconds per round trip."""
        port, tool = str(SMALL_PORT), str(self.tool)
        output, used_s = self._talk(
            [tool, "server", port],
            "ready",
            [tool, "client", self.address, port, str(CONNECTIONS), str(SECONDS)],
        )
        rate = float(output)
        return Cost(1e6 / rate, used_s * 1e6 / (rate * SECONDS))

    def runs(self) -> list[dict[str, Any]]:
        """Of every program on the two cgroups: its name, times run and nanoseconds, in small messages."""
        statistics = bpf.library().bpf_enable_stats(BPF_STATS_RUN_TIME)  # until it is closed
        assert statistics >= 0
        try:
            round_trips = SECONDS * 1e6 / self.small().wall
        finally:
            os.close(statistics)
        found = []
        sides: tuple[Side, ...] = ("client", "server")
        for side in sides:
            with self._cgroup(side) as cgroup:
                for number in bpf.attached_programs(cgroup):
                    info = json.loads(run("bpftool", "-j", "prog", "show", "id", str(number)))
                    count = info.get("run_cnt", 0)
                    found.append(
                        {
                            "side": side,
                            "program": info["name"],
                            "ns_per_run": info["run_time_ns"] / count if count else 0.0,
                            "runs_per_round_trip": count / round_trips,
                        }
                    )
        return found


class Rounds(NamedTuple):
    """Values of a variant and of the baseline beside it, one each per round."""

    ours: list[float]
    baseline: list[float]


def measure(track: Track) -> dict[str, dict[str, Rounds]]:
    """Measure (``MEASURES``) -> variant -> rounds."""
    found = {what: {variant.name: Rounds([], []) for variant in VARIANTS[1:]} for what in MEASURES}
    for turn in range(ROUNDS):
        for variant in VARIANTS[1:]:
            pair = (VARIANTS[0], variant) if turn % 2 else (variant, VARIANTS[0])
            for one in pair:
                with track.in_force(one):
                    values = (*track.bulk(), *track.small())
                for what, value in zip(MEASURES, values, strict=True):
                    rounds = found[what][variant.name]
                    (rounds.ours if one is variant else rounds.baseline).append(value)
    return found


def compare(transport: str, found: dict[str, dict[str, Rounds]]) -> list[Row]:
    rows = []
    for what, (unit, limited) in MEASURES.items():
        for variant in VARIANTS[1:]:
            limit = variant.bulk_limit if what.startswith("bulk") else variant.small_limit
            rounds = found[what][variant.name]
            rows.append(
                Row.of(f"{transport}, {what}: {variant.name}", unit, *rounds, limit if limited else None)
            )
    return rows


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """Of a process that ends, once it has."""
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
    shared = sum(lines_of_code(SOURCES / file) for file in ("options.c", "include/option.h"))
    return [*rows, Row.value("C, shared by all plugins", "lines", shared)]


def per_run(track: Track) -> tuple[list[Row], dict[str, Any]]:
    rows, raw = [], {}
    for variant in VARIANTS[1:]:
        with track.in_force(variant):
            raw[variant.name] = track.runs()
        for program in raw[variant.name]:
            who = f"{variant.name}: {program['program']}, {program['side']}"
            rows.append(Row.value(f"a run of {who}", "ns", program["ns_per_run"]))
            rows.append(Row.value(f"runs of {who}", "per round trip", program["runs_per_round_trip"]))
    return rows, raw


def compile_programs(directory: Path) -> BpfObject:
    """BCC looks for its stub of the kernel's headers beside the source."""
    source = directory / "every_packet.c"
    shutil.copy(HERE / "bpf/every_packet.c", source)
    shutil.copytree(SOURCES / "stub", directory / "stub")
    return asyncio.run(compile_object(source, log_file=directory / "compiler.log"))


def bench(transports: Sequence[str] = ("loopback", "veth")) -> tuple[list[Row], Any]:
    rows, raw = table_2(), {}
    for transport in transports:
        with Lab(client=1, server=1) as lab:
            tool = lab.directory / "small_messages"
            run("gcc", "-O2", "-Wall", "-Werror", "-o", str(tool), str(HERE / "small_messages.c"))
            track = Track(lab, transport, compile_programs(lab.directory), tool)
            raw[transport] = measure(track)
            rows += compare(transport, raw[transport])
            if transport == transports[-1]:
                found, raw["runs"] = per_run(track)
                rows += found
    return rows, raw
