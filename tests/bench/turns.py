# SPDX-License-Identifier: Apache-2.0
"""The command line of the benchmarks that run on the patched kernel."""

from __future__ import annotations

import argparse
from pathlib import Path

from pm.linux.host.patched_kernel import is_patched


def turns(description: str | None, default: int) -> int:
    """How many turns are wanted; exits with status 2 where that is no number, or this no patched kernel."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("turns", nargs="?", type=int, default=default, help=f"default: {default}")
    wanted: int = parser.parse_args().turns
    if wanted < 1:
        parser.error("at least one turn is needed")
    if not is_patched(Path("/proc/sys/net/mptcp")):
        parser.error("this is not the patched kernel; use kernel/run, as --help shows")
    return wanted
