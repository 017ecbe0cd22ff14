# SPDX-License-Identifier: Apache-2.0
"""What one reader costs that asks once in a second, with many sessions: the service's processor time."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

from tests.bench.load import Reader
from tests.bench.page import cpu_s, share
from tests.bench.rows import Row
from tests.bench.sessions import OPEN_RATE
from tests.lab.lab import Lab
from tests.lab.scenarios import config, policy
from tests.lab.service import Service
from tests.lab.waiting import wait_equal, wait_for

SESSIONS = int(os.environ.get("LOOKING_SESSIONS", "10000"))
WATCHED_S = 20.0
PATHS = ("/v1/interfaces", "/metrics")


def ask(service: Service, path: str) -> None:
    """Once in a second, for ``WATCHED_S``."""
    reader, ends = Reader(str(service.socket_path)), time.monotonic() + WATCHED_S
    while (began := time.monotonic()) < ends:
        reader.get(path)
        time.sleep(max(0.0, 1 - (time.monotonic() - began)))
    reader.sock.close()


def rest(service: Service) -> None:
    """Until nothing is sampled any more, and what came with the sessions is done."""

    def used() -> float:
        before = cpu_s(service)
        time.sleep(2)
        return cpu_s(service) - before

    wait_for(used, "a service that is quiet", until=lambda s: s < 0.2, deadline_s=180)


def bench(sessions: int = SESSIONS) -> tuple[list[Row], Any]:
    found: dict[str, float] = {}
    with Lab(client=2, server=1) as lab:
        lab.server()
        service = lab.service(config(policy(lab, "a")))
        lab.client(cgroup="a").open(sessions, OPEN_RATE, deadline_s=300)
        wait_equal(lambda: service.get("/v1/status")["sessions"], sessions, deadline_s=60)
        for path in PATHS:
            rest(service)
            found[f"before {path}"] = share(service, lambda: time.sleep(WATCHED_S))
            found[path] = share(service, partial(ask, service, path))
        rest(service)
        found["nobody looks any more"] = share(service, lambda: time.sleep(WATCHED_S))
    rows = [Row.value(f"processor, {sessions} sessions, {what}", "%", 100 * s) for what, s in found.items()]
    return rows, found
