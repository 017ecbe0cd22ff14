# SPDX-License-Identifier: Apache-2.0
"""Commands under the patched kernel (User Mode Linux), by kernel/run.

KERNEL_RUN_OPTIONS: more options of kernel/run, for example ``--debug --mem 2G``.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.lab.service import ROOT

OPTIONS = shlex.split(os.environ.get("KERNEL_RUN_OPTIONS", ""))
RUN = ROOT / "kernel/run"
# The size of the table of MPTCP tokens follows from it; where a row is full, connections are plain TCP.
MEMORY = "4G"
# Page faults cost much there, and at times several times as much: deadlines are that much longer.
PATIENCE = {"MPTCP_PM_TEST_PATIENCE": "4"}


def kernel_run(
    *command: str, stdin: bytes = b"", options: tuple[str, ...] = (), directory: Path = ROOT
) -> subprocess.CompletedProcess[bytes]:
    """Exit status, output and errors of a command; ``options`` are those of kernel/run."""
    share = ("--share", sys.prefix) if sys.prefix.startswith(("/tmp/", "/run/")) else ()
    return subprocess.run(
        [RUN, *share, "--timeout", "900", "--mem", MEMORY, *OPTIONS, *options, "--", *command],
        cwd=directory,
        env={**PATIENCE, **os.environ},
        input=stdin,
        capture_output=True,
    )
