# SPDX-License-Identifier: Apache-2.0
"""Join delay on a router with a full table, of which 10,000 routes change per second."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from statistics import median
from typing import Any

from tests.bench.join import CONTENDERS, Track
from tests.bench.route_churn import RATE
from tests.bench.rows import Row
from tests.lab.lab import Lab
from tests.lab.scenarios import router

ROUNDS = 21
NAMES = ("ours", "kernel")


class Churn:
    """tests/bench/route_churn.py in the client's namespace of a lab; it pauses at first."""

    def __init__(self, lab: Lab) -> None:
        process = lab.popen(
            [sys.executable, "-m", "tests.bench.route_churn", router(lab, 1, 4), "eth0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._commands, self._answers = process.stdin, process.stdout
        assert self._answers.readline() == "ready\n"

    def toggle(self) -> int:
        """Begin or pause; the changes per second since the last call."""
        self._commands.write("\n")
        self._commands.flush()
        return int(self._answers.readline())


def bench() -> tuple[list[Row], Any]:
    """Rounds with and without changes take turns; so do the contenders."""
    rates: list[float] = []
    with ExitStack() as stack:
        tracks, churns = {}, {}
        for name in NAMES:
            lab = stack.enter_context(Lab(client=2, server=1))
            CONTENDERS[name](lab)
            lab.server()
            tracks[name], churns[name] = Track(lab), Churn(lab)
            tracks[name].warm_up()
        quiet: dict[str, list[float]] = {name: [] for name in NAMES}
        busy: dict[str, list[float]] = {name: [] for name in NAMES}
        for _ in range(ROUNDS):
            for name, track in tracks.items():
                quiet[name].append(1e3 * median(track.round()))
                churns[name].toggle()
                busy[name].append(1e3 * median(track.round()))
                rates.append(churns[name].toggle())
    what = f"join delay, {RATE} routes changing per second / none"
    rows = [
        Row.of(f"{what}, {name}", "ms", busy[name], quiet[name], 2 if name == "ours" else None)
        for name in NAMES
    ]
    rows.append(Row.value("routes that changed", "1/s", median(rates)))
    return rows, {"quiet": quiet, "busy": busy, "rates": rates}
