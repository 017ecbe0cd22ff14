# SPDX-License-Identifier: GPL-2.0-only
"""Waiting for a condition, with a deadline.

MPTCP_PM_TEST_PATIENCE: what deadlines are multiplied by, on a slow machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = float(os.environ.get("MPTCP_PM_TEST_PATIENCE", "1"))
T = TypeVar("T")


def wait_for(probe: Callable[..., T], deadline_s: float = 10.0, until: Callable[..., bool] = bool) -> T:
    """Call ``probe()`` every 10 ms until ``until`` holds of its value (default: it is true); the value.

    AssertionError with the last value after ``deadline_s`` seconds, times PATIENCE.
    """
    deadline_s *= PATIENCE
    end = time.monotonic() + deadline_s
    while True:
        value = probe()
        if until(value):
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"not reached in {deadline_s} s; last value: {value!r}")
        time.sleep(0.01)
