# SPDX-License-Identifier: Apache-2.0
"""What comparing the sessions with the kernel costs, all the time and after lost events."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.join import CGROUP
from tests.bench.load import Reader
from tests.bench.rows import Row
from tests.bench.sessions import OPEN_RATE, live
from tests.lab.lab import Lab
from tests.lab.service import Service
from tests.lab.traffic import Traffic
from tests.lab.waiting import wait_equal

SESSIONS = 10_000
CONNECTIONS, AT_ONCE = 18_000, 500  # with three events each, more than the socket's buffer holds
WATCHED_S = 120.0
PROBE = "/healthz"


def cpu_s(pid: int) -> float:
    """Processor time that a process has used (proc(5), utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def counter(service: Service, name: str) -> int:
    return int(service.get("/v1/status")["counters"].get(name, 0))


def watch(service: Service) -> tuple[float, float]:
    """Share of one processor that the idle service takes, and seconds from one comparison to the next."""
    passes, used, begin = counter(service, "resyncs"), cpu_s(service.process.pid), time.monotonic()
    time.sleep(WATCHED_S)
    elapsed = time.monotonic() - begin
    share = (cpu_s(service.process.pid) - used) / elapsed
    return share, elapsed / max(counter(service, "resyncs") - passes, 1)


def lose_events(service: Service, churn: Traffic) -> tuple[float, float]:
    """The longest time without an answer after lost events, and seconds until all is compared."""
    service.send_signal(signal.SIGSTOP)
    for _ in range(0, CONNECTIONS, AT_ONCE):
        churn.open(AT_ONCE)
        churn.close()
    service.send_signal(signal.SIGCONT)
    begin = time.monotonic()
    reader = Reader(str(service.socket_path))
    passes = counter(service, "resyncs")
    longest = 0.0
    while counter(service, "events_lost") == 0 or counter(service, "resyncs") < passes + 1:
        longest = max(longest, *(reader.seconds(PROBE) for _ in range(20)))
    return longest, time.monotonic() - begin


def bench() -> tuple[list[Row], Any]:
    with Lab(client=2, server=1) as lab:
        service = lab.service(
            {"policies": [{"name": "bench", "cgroup": lab.cgroup(CGROUP), "path_manager": "fullmesh"}]}
        )
        lab.server()
        lab.client(cgroup=CGROUP).open(SESSIONS, OPEN_RATE, deadline_s=120)
        wait_equal(partial(live, lab, service), (SESSIONS, SESSIONS), deadline_s=60)
        share, period_s = watch(service)
        longest_s, recovery_s = lose_events(service, lab.client())
        wait_equal(partial(live, lab, service), (SESSIONS, SESSIONS), deadline_s=60)
        what = f"{SESSIONS} sessions live"
        rows = [
            Row.value(f"one comparison to the next, {what}", "s", period_s, 60),
            Row.value(f"processor, idle, {what}", "%", 100 * share, 2),
            Row.value(f"longest wait for an answer after lost events, {what}", "ms", 1e3 * longest_s, 100),
            Row.value(f"lost events to compared, {what}", "s", recovery_s),
        ]
        return rows, {"share": share, "period_s": period_s, "longest_s": longest_s, "recovery_s": recovery_s}
