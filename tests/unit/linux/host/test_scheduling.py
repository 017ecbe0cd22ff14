# SPDX-License-Identifier: Apache-2.0
"""The scheduler is asked for short waits; class and nice value stay."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import os
from pm.linux.host.scheduling import prefer_latency
print(prefer_latency(), os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))
"""


def asked(*prefix: str) -> list[str]:
    command = [*prefix, sys.executable, "-c", CODE]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_class_and_nice_value_stay() -> None:
    """An ordinary process stays ordinary, a nice one nice."""
    assert asked() == ["True", str(os.SCHED_OTHER), str(os.getpriority(os.PRIO_PROCESS, 0))]
    assert asked("nice", "-n", "7")[2] == str(min(os.getpriority(os.PRIO_PROCESS, 0) + 7, 19))


def test_another_class_is_left_alone() -> None:
    """An administrator who chose a class (here: batch) knows better."""
    assert asked("chrt", "--batch", "0")[:2] == ["False", str(os.SCHED_BATCH)]
