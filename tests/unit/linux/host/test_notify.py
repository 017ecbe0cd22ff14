# SPDX-License-Identifier: Apache-2.0
"""The service manager's watchdog (sd_watchdog_enabled(3))."""

from __future__ import annotations

import os

import pytest

from pm.linux.host.notify import watchdog_s


@pytest.mark.parametrize(
    ("time_us", "pid", "seconds"),
    [
        ("30000000", "", 30.0),
        ("30000000", "own", 30.0),
        ("30000000", "1", 0.0),
        ("", "", 0.0),
        ("x", "", 0.0),
    ],
)
def test_watchdog(monkeypatch: pytest.MonkeyPatch, time_us: str, pid: str, seconds: float) -> None:
    """It is for this process only if the pid is, or none is given."""
    monkeypatch.setenv("WATCHDOG_USEC", time_us)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert watchdog_s() == seconds
