# SPDX-License-Identifier: Apache-2.0
"""What grows with live sessions: memory, the listing, and the join delay with and without a reader."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any

from tests.bench.join import CGROUP, Track
from tests.bench.load import Reader
from tests.bench.rows import Row
from tests.lab.lab import Lab
from tests.lab.service import Service
from tests.lab.waiting import wait_equal, wait_for

SESSIONS = (100, 1_000, 10_000)
OPEN_RATE = 400.0
LISTING = "/v1/sessions?limit=100"
API_ROUNDS, REQUESTS = 7, 30
JOIN_ROUNDS, JOINS = 5, 30


def live(lab: Lab, service: Service) -> tuple[int, int]:
    """Sessions that the service counts, and those to which the kernel gives both subflows."""
    meshed = sum(
        sum(flow.state == "ESTAB" for flow in flows) == 2 for flows in lab.subflows("client").values()
    )
    return service.get("/v1/status")["sessions"], meshed


@contextmanager
def load(lab: Lab, *args: str, module: str = "tests.bench.load") -> Iterator[None]:
    process = lab.popen([sys.executable, "-m", module, *args], ns=None)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def time_listing(lab: Lab, service: Service) -> tuple[list[float], list[float]]:
    """Seconds per request, ours and a bare handler's of the same bytes: medians of alternating rounds."""
    ours = Reader(str(service.socket_path))
    body = lab.directory / "body"
    body.write_bytes(ours.get(LISTING))
    bare_socket = str(lab.directory / "bare.sock")
    with load(lab, "bare", bare_socket, str(body)):

        def connect() -> Reader | None:
            try:
                return Reader(bare_socket)
            except OSError:
                return None

        bare = wait_for(connect, "a bare server that listens")
        assert bare is not None
        rounds: tuple[list[float], list[float]] = ([], [])
        for _ in range(API_ROUNDS):
            for reader, medians in zip((ours, bare), rounds, strict=True):
                medians.append(median(reader.seconds(LISTING) for _ in range(REQUESTS)))
    return rounds


def time_joins(lab: Lab, service: Service, track: Track) -> tuple[list[float], list[float]]:
    """Join delay in seconds beside a reader that never pauses, and alone: medians of alternating rounds."""
    polled, alone = [], []
    for _ in range(JOIN_ROUNDS):
        alone.append(median(track.round(JOINS)))
        with load(lab, "poll", str(service.socket_path), LISTING):
            polled.append(median(track.round(JOINS)))
    return polled, alone


def bench() -> tuple[list[Row], Any]:
    rows: list[Row] = []
    raw: dict[str, Any] = {}
    with Lab(client=2, server=1) as lab:
        service = lab.service(
            {"policies": [{"name": "bench", "cgroup": lab.cgroup(CGROUP), "path_manager": "fullmesh"}]}
        )
        idle = service.rss_bytes()
        rows.append(Row.value("memory, idle", "MiB", idle / 2**20, 50))
        lab.server()
        track = Track(lab)
        track.warm_up()
        holder = lab.client(cgroup=CGROUP)
        held = 0
        for count in SESSIONS:
            base, before = service.rss_bytes(), held
            holder.open(count - held, OPEN_RATE, deadline_s=120)
            held = count
            wait_equal(partial(live, lab, service), (count, count), deadline_s=60)
            grown = (service.rss_bytes() - base) / (count - before)
            last = count == SESSIONS[-1]
            rows.append(
                Row.value(
                    f"memory per session, {before} to {count}", "KiB", grown / 1024, 2 if last else None
                )
            )
            listing, bare = time_listing(lab, service)
            rows.append(
                Row.of(
                    f"GET {LISTING}, {count} live / bare aiohttp",
                    "ms",
                    [s * 1e3 for s in listing],
                    [s * 1e3 for s in bare],
                    4 if last else None,
                )
            )
            polled, alone = time_joins(lab, service, track)
            rows.append(
                Row.of(
                    f"join delay, {count} live, polled / alone",
                    "ms",
                    [s * 1e3 for s in polled],
                    [s * 1e3 for s in alone],
                    2 if last else None,
                )
            )
            raw[str(count)] = {
                "rss_bytes": service.rss_bytes(),
                "listing": listing,
                "bare": bare,
                "polled": polled,
                "alone": alone,
            }
        rows.append(Row.value(f"exit with {held} live", "s", service.terminate(), 2))
    return rows, raw
