# SPDX-License-Identifier: Apache-2.0
"""Waiting for a condition, with a deadline; a failure says what was wanted and what came.

MPTCP_PM_TEST_PATIENCE: what deadlines are multiplied by, on a slow machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = float(os.environ.get("MPTCP_PM_TEST_PATIENCE", "1"))
DEADLINE_S = 10.0
POLL_S = 0.01
T = TypeVar("T")


def wait_for(
    probe: Callable[[], T],
    what: str,
    *,
    until: Callable[[T], object] = bool,
    deadline_s: float = DEADLINE_S,
) -> T:
    """Call ``probe()`` every 10 ms until ``until`` holds for its value (default: it is true); the value.

    ``what`` says in words what is waited for. AssertionError with these words and the last value after
    ``deadline_s`` seconds, times PATIENCE.
    """
    deadline_s *= PATIENCE
    end = time.monotonic() + deadline_s
    while True:
        value = probe()
        if until(value):
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"waited {deadline_s:g} s\nwanted: {what}\ncame:   {value!r}")
        time.sleep(POLL_S)


def wait_equal(probe: Callable[[], object], wanted: object, *, deadline_s: float = DEADLINE_S) -> None:
    """Call ``probe()`` every 10 ms until its value equals ``wanted``; else AssertionError with both."""
    wait_for(probe, repr(wanted), until=lambda value: value == wanted, deadline_s=deadline_s)
