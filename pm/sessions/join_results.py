# SPDX-License-Identifier: Apache-2.0
"""What became of subflows that joined a session (MP_JOIN), and under which names that is counted."""

from __future__ import annotations

from enum import StrEnum

from pm.sessions.closing_reasons import Ending
from pm.sessions.session import FailureKind


class JoinResult(StrEnum):
    """``REFUSED`` follows an ``ESTABLISHED``: the kernel reports that at the SYN/ACK."""

    ESTABLISHED = "established"
    UNANSWERED = "unanswered"
    UNREACHABLE = "unreachable"
    RESET = "reset"
    NO_MPTCP = "no_mptcp"
    REFUSED = "refused"
    DROPPED = "dropped"  # by the kernel, without an event: the peer withdrew the address

    @property
    def counter(self) -> str:
        """Its name among the counters of the service."""
        return f"join_{self}"


def join_result(ending: Ending) -> JoinResult | None:
    """None for a subflow that was established, and ended."""
    return None if ending.kind in (FailureKind.ENDED, FailureKind.COMMAND) else JoinResult(ending.kind)
