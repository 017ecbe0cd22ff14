# SPDX-License-Identifier: GPL-2.0-only
"""When a subflow that failed is tried again. Pure; points in time are on the monotonic clock."""

from __future__ import annotations

from pm.sessions.session import Retry

RETRY_FIRST_S = 1.0
RETRY_CAP_S = 300.0


def next_retry(before: Retry | None, reason: str, now: float) -> Retry:
    """After a failure of a pair: when it is tried again, 1, 2, 4 … 300 s later."""
    failures = before.failures + 1 if before else 1
    delay = min(RETRY_CAP_S, RETRY_FIRST_S * 2 ** min(failures - 1, 16))
    return Retry(failures, now + delay, reason)
