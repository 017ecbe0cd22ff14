# SPDX-License-Identifier: Apache-2.0
"""What the page costs: the service's processor time and the join delay while ten browsers show it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.join import CGROUP, Track
from tests.bench.load import Reader
from tests.bench.rows import Row
from tests.bench.sessions import OPEN_RATE, live, load
from tests.lab.lab import Lab
from tests.lab.service import Service
from tests.lab.waiting import wait_equal

CLIENTS = 10
SESSIONS = 1_000
ROUNDS, JOINS = 5, 30
WATCHED_S = 10.0
# What a page that shows the view asks for, and every how many seconds; besides, a stream is open.
VIEWS = {
    "overview": {"/v1/interfaces": 1, f"/v1/policies/{CGROUP}/series": 1, "/v1/policies": 2, "/v1/status": 5},
    "sessions": {"/v1/sessions?limit=200": 1, "/v1/status": 5},
    "session": {"/v1/sessions/{token}": 1, "/v1/sessions/{token}/why": 3, "/v1/status": 5},
}


def show(socket: str, token: str, view: str) -> None:
    """Ten clients without a pause between their seconds; it never ends."""
    paths = {path.format(token=token): every_s for path, every_s in VIEWS[view].items()}
    for number in range(CLIENTS):
        threading.Thread(target=_client, args=(socket, paths, number / CLIENTS), daemon=True).start()
    threading.Event().wait()


def _client(socket: str, paths: dict[str, int], begins_s: float) -> None:
    time.sleep(begins_s)
    stream, reader = Reader(socket), Reader(socket)
    stream.sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    threading.Thread(target=_drain, args=(stream,), daemon=True).start()
    for second in count():
        began = time.monotonic()
        for path in (path for path, every_s in paths.items() if second % every_s == 0):
            reader.get(path)
        time.sleep(max(0.0, 1 - (time.monotonic() - began)))


def _drain(stream: Reader) -> None:
    while stream.sock.recv(1 << 16):
        pass


def cpu_s(service: Service) -> float:
    """Processor time that the service has used (proc(5): utime and stime)."""
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def share(service: Service, act: Callable[[], object]) -> float:
    """Of one processor, while ``act`` runs: 1 is all of it."""
    began, used = time.monotonic(), cpu_s(service)
    act()
    return (cpu_s(service) - used) / (time.monotonic() - began)


def bench() -> tuple[list[Row], Any]:
    rows: list[Row] = []
    raw: dict[str, Any] = {}
    with Lab(client=2, server=1) as lab:
        policy = {"name": CGROUP, "cgroup": lab.cgroup(CGROUP), "path_manager": "fullmesh"}
        service = lab.service({"policies": [policy]})
        lab.server()
        track = Track(lab)
        track.warm_up()
        lab.client(cgroup=CGROUP).open(SESSIONS, OPEN_RATE, deadline_s=120)
        wait_equal(lambda: live(lab, service), (SESSIONS, SESSIONS), deadline_s=60)
        (session, *_) = service.get("/v1/sessions?limit=1")["sessions"]
        idle = share(service, lambda: time.sleep(WATCHED_S))
        rows.append(Row.value(f"processor, {SESSIONS} live, nobody looks", "%", 100 * idle))
        for view in VIEWS:
            shown, alone = [], []
            arguments = (str(service.socket_path), session["token"], view)
            for _ in range(ROUNDS):
                alone.append(median(track.round(JOINS)))
                with load(lab, *arguments, module="tests.bench.page"):
                    shown.append(median(track.round(JOINS)))
            with load(lab, *arguments, module="tests.bench.page"):
                used = share(service, lambda: time.sleep(WATCHED_S))
            rows.append(Row.value(f"processor, {CLIENTS} clients show {view}", "%", 100 * used))
            rows.append(
                Row.of(
                    f"join delay, {CLIENTS} clients show {view} / nobody looks",
                    "ms",
                    [s * 1e3 for s in shown],
                    [s * 1e3 for s in alone],
                    2,
                )
            )
            raw[view] = {"processor": used, "shown": shown, "alone": alone}
    return rows, raw


if __name__ == "__main__":
    show(*sys.argv[1:])
