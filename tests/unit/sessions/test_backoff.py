# SPDX-License-Identifier: Apache-2.0
"""When a subflow that failed is tried again."""

from __future__ import annotations

from pm.sessions.backoff import RETRY_CAP_S, next_retry
from pm.sessions.session import Retry


def test_retries_are_further_and_further_apart() -> None:
    """1, 2, 4 … 300 s after the failure, and the last reason is kept."""
    retry: Retry | None = None
    delays = []
    for i in range(2000):
        retry = next_retry(retry, f"reason {i}", 50.0)
        delays.append(retry.not_before - 50.0)
    assert retry
    assert delays[:10] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, RETRY_CAP_S]
    assert delays[-1] == RETRY_CAP_S
    assert (retry.failures, retry.reason) == (2000, "reason 1999")
