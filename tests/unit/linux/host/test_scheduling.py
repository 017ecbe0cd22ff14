# SPDX-License-Identifier: Apache-2.0
"""The scheduler is asked for short waits, or for long ones; the nice value stays."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import os
from pm.linux.host.scheduling import Scheduling
scheduling = Scheduling()
for in_no_hurry in (False, True, False):
    chosen = scheduling.choose(in_no_hurry=in_no_hurry)
    print(chosen, os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))
"""


def asked(*prefix: str) -> list[str]:
    command = [*prefix, sys.executable, "-c", CODE]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_nice_value_stays() -> None:
    """The thread changes its class back and forth, and is as nice as it was."""
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    for prefix, kept in ((), nice), (("nice", "-n", "7"), min(nice + 7, 19)):
        usual, batch = f"True {os.SCHED_OTHER} {kept}", f"True {os.SCHED_BATCH} {kept}"
        assert asked(*prefix) == [usual, batch, usual]


def test_another_class_is_left_alone() -> None:
    """An administrator who chose a class (here: batch) knows better."""
    assert {line[:7] for line in asked("chrt", "--batch", "0")} == {f"False {os.SCHED_BATCH}"}
