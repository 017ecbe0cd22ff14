# SPDX-License-Identifier: Apache-2.0
"""Start to all policies attached, against the imports and one BCC compile; what grows with both."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median
from typing import Any

from tests.bench.join import Track
from tests.bench.rows import Row
from tests.lab.lab import Lab
from tests.lab.service import ROOT

ROUNDS = 5
# (policies, cgroups): the target first, then how it grows with each.
SIZES = ((10, 100), (1, 100), (100, 100), (10, 10), (10, 1000))
TARGET = SIZES[0]
# The libraries that `run` uses, and the classifier.
BASELINE = """
import aiohttp.web, asyncinotify, prometheus_client, pydantic, structlog, yaml
from pathlib import Path
from pm.linux.bpf.compiler import compile_source
compile_source(Path("bpf_pm/classify.c").resolve(), [])
"""


def time_baseline() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", BASELINE], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def time_start(lab: Lab, config: dict[str, Any], cgroups: int) -> float:
    """Seconds from exec to readiness, with every cgroup attached."""
    service = lab.service(config, start=False)
    start = time.perf_counter()
    service.start()
    duration = time.perf_counter() - start
    attached = sum(len(policy["cgroups"]) for policy in service.get("/v1/policies")["policies"])
    assert attached == cgroups, f"{attached} of {cgroups} cgroups attached"
    service.terminate()
    return duration


def bench() -> tuple[list[Row], Any]:
    rows, raw = [], {}
    for policies, cgroups in SIZES:
        with Lab() as lab:
            for i in range(cgroups):
                lab.cgroup(f"p{i % policies}/c{i}")
            config = {
                "policies": [
                    {"name": f"p{i}", "cgroup": lab.cgroup_path(f"p{i}/*"), "path_manager": "fullmesh"}
                    for i in range(policies)
                ]
            }
            rounds = [(time_start(lab, config, cgroups), time_baseline()) for _ in range(ROUNDS)]
            service = lab.service(config)
            memory = service.rss_bytes()
            lab.server()
            track = Track(lab, cgroup="p0/c0")
            track.warm_up()
            joins = [median(track.round()) for _ in range(ROUNDS)]
            service.terminate()
        ours, baseline = zip(*rounds, strict=True)
        size = f"{policies} policies, {cgroups} cgroups"
        limit = 2.5 if (policies, cgroups) == TARGET else None
        rows.append(Row.of(f"start, {size} / imports and compile", "s", ours, baseline, limit))
        rows.append(Row.value(f"memory, idle, {size}", "MiB", memory / 2**20))
        rows.append(Row.value(f"join delay, {size}", "ms", median(joins) * 1e3))
        raw[size] = {"ours": ours, "baseline": baseline, "rss_bytes": memory, "joins": joins}
    return rows, raw
