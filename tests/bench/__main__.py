# SPDX-License-Identifier: Apache-2.0
"""``make bench``: every benchmark or those named; one table, and the rounds as JSON.

Exit status 1 where a limit of the project is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import comparison, join, options, page, routes, sessions, stalls, start
from tests.bench.rows import Row

BENCHES = {
    "join": join.bench,
    "start": start.bench,
    "sessions": sessions.bench,
    "routes": routes.bench,
    "comparison": comparison.bench,
    "stalls": stalls.bench,
    "options": options.bench,
    "page": page.bench,
}
RESULTS = Path(__file__).parent / "results"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def table(rows: list[Row]) -> Table:
    shown = Table(title="medians; ratios within one run")
    for column in ("what", "ours", "peer", "unit", "ratio", "limit", ""):
        shown.add_column(column, justify="left" if column in ("what", "unit", "") else "right", no_wrap=True)
    for row in rows:
        shown.add_row(
            row.what,
            number(row.ours),
            number(row.peer),
            row.unit,
            number(row.ratio),
            number(row.limit),
            row.verdict,
        )
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHES, []], metavar="|".join(BENCHES))
    names = parser.parse_args().names or list(BENCHES)
    # SIGTERM unwinds the laboratories as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows: list[Row] = []
    raw = {}
    for name in names:
        print(f"bench: {name}", file=sys.stderr, flush=True)
        found, raw[name] = BENCHES[name]()
        rows += found
    Console(width=None if sys.stdout.isatty() else 140).print(table(rows))
    now = datetime.now(UTC)
    machine = {"kernel": os.uname().release, "cpus": os.cpu_count(), "time": now.isoformat()}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    path.write_text(
        json.dumps({"machine": machine, "rows": [row._asdict() for row in rows], "rounds": raw}, indent=1)
    )
    print(path)
    return int(any(row.verdict == "MISSED" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
