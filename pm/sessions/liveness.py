# SPDX-License-Identifier: Apache-2.0
"""Whether an established subflow still gets its data through, and how fast. Pure; monotonic clock.

A dead path shows nothing else than data outstanding while the retransmission timeout doubles. A living
one with 15 % loss shows a backoff of 2 or 3 now and then, for up to 2 s, hence two looks.
"""

from __future__ import annotations

from pm.kernel import SubflowRecord
from pm.model import Subflow

BACKOFF = 2  # three timeouts in a row
BETWEEN_LOOKS_S = 1.0


def look(subflow: Subflow, record: SubflowRecord, now: float) -> bool:
    """Note what the kernel shows of a subflow; whether it has become stuck, or works again."""
    if record.bytes_acked > 1 and record.bytes_received:  # the SYN counts as one byte
        subflow.carried = True
    was_stuck = subflow.stuck
    if not record.unacked or record.backoff < BACKOFF:
        subflow.suspect_since, subflow.stuck = 0.0, False
    elif not subflow.suspect_since or subflow.suspect_acked != record.bytes_acked:
        subflow.suspect_since, subflow.suspect_acked, subflow.stuck = now, record.bytes_acked, False
    elif now - subflow.suspect_since >= BETWEEN_LOOKS_S:
        subflow.stuck = True
    return subflow.stuck != was_stuck


def note_rtt(subflow: Subflow, record: SubflowRecord) -> bool:
    """Note the round-trip time where it is new, or has changed by more than a quarter; whether it has."""
    known, now = subflow.rtt_us, record.rtt_us
    if not now or (known is not None and 4 * abs(now - known) <= known):
        return False
    subflow.rtt_us = now
    return True


def is_suspect(subflow: Subflow) -> bool:
    """Whether a second look is needed."""
    return bool(subflow.suspect_since) and not subflow.stuck
