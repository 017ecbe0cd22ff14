# SPDX-License-Identifier: Apache-2.0
"""When what failed is tried again. Pure; points in time are on the monotonic clock."""

from __future__ import annotations

from pm.sessions.session import FailureKind, Retry

RETRY_FIRST_S = 1.0
RETRY_CAP_S = 300.0
GROWTH, REFUSED_GROWTH = 2, 4  # a peer that refuses has a reason that lasts: its limit, its rules
PROVEN_S = 10.0  # a subflow that lived so long works
REFUSED_WITHIN_S = 5.0  # the peer's verdict comes after its SYN/ACK, thus after SUB_ESTABLISHED
EARLY_RETRY_S = 5.0  # how soon after a failure a change of routes or addresses may cause the next try
ASK_AGAIN_S = 1.0  # after the kernel could not answer a question


def next_retry(
    before: Retry | None,
    reason: str,
    now: float,
    *,
    kind: FailureKind = FailureKind.ENDED,
    left_half: bool = False,
) -> Retry:
    """After a failure: 1, 2, 4 … 300 s later, or 1, 4, 16 … 300 s where the peer refused."""
    failures = before.failures + 1 if before else 1
    growth = REFUSED_GROWTH if kind is FailureKind.REFUSED else GROWTH
    delay = min(RETRY_CAP_S, RETRY_FIRST_S * growth ** min(failures - 1, 16))
    left_half = left_half or (before is not None and before.left_half)
    return Retry(failures, now, now + delay, reason, kind, left_half)


def retry_early(retry: Retry, now: float) -> None:
    """Something has changed: the next try comes soon, but not sooner than some seconds after the failure."""
    retry.not_before = min(retry.not_before, max(now, retry.failed_at + EARLY_RETRY_S))
