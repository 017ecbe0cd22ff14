# SPDX-License-Identifier: Apache-2.0
"""Why a subflow ended that nobody closed here, by its MPTCP_EVENT_SUB_CLOSED. Pure."""

from __future__ import annotations

import os
from errno import ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ENETUNREACH, ENOPROTOOPT, ETIMEDOUT, errorcode
from typing import NamedTuple

from pm.kernel import MptcpEvent
from pm.model import Origin, Subflow, SubflowState
from pm.sessions.backoff import REFUSED_WITHIN_S
from pm.sessions.session import FailureKind

SILENT = (ETIMEDOUT, EHOSTUNREACH, ENETUNREACH)  # the path is dead: the peer was not told of the end
UNREACHABLE = (EHOSTUNREACH, ENETUNREACH, ENOPROTOOPT)  # what the codes of ICMP are mapped to
CLOSED_BY_PEER = "closed by the peer"
# MP_TCPRST reasons (RFC 8684, section 3.6)
RESET_REASONS = {
    1: "MPTCP-specific error",
    2: "lack of resources",
    3: "administratively prohibited",
    4: "too much outstanding data",
    5: "unacceptable performance",
    6: "middlebox interference",
}


class Ending(NamedTuple):
    """A subflow that ended and that nobody closed here."""

    subflow: Subflow
    reason: str
    kind: FailureKind

    @property
    def is_failure(self) -> bool:
        """Not a subflow that worked until the peer closed it, as it does at the end of a session."""
        return self.reason != CLOSED_BY_PEER


def closing_reason(subflow: Subflow, event: MptcpEvent, *, refused: bool) -> str:
    """The reason in words."""
    if event.reset_reason >= 0:
        reason = RESET_REASONS.get(event.reset_reason, "reset by the peer")
    elif event.error and not refused:
        reason = f"{errorcode.get(event.error, event.error)}: {os.strerror(event.error)}"
    elif refused:
        reason = ""
    else:
        opening = subflow.state is SubflowState.OPENING
        reason = "the SYN/ACK had no MP_JOIN" if opening else CLOSED_BY_PEER
    if refused:
        reason = ": ".join(filter(None, ("refused by the peer (its subflow limit?)", reason)))
    return reason


def failure_kind(subflow: Subflow, event: MptcpEvent, refused: bool) -> FailureKind:
    """The same, for programs. The kernel ends a subflow without an error where a SYN/ACK has no MP_JOIN."""
    if refused:
        return FailureKind.REFUSED
    if subflow.state is SubflowState.ESTABLISHED:
        return FailureKind.ENDED
    if not event.error:
        return FailureKind.NO_MPTCP
    if event.error in (ECONNREFUSED, ECONNRESET):
        return FailureKind.RESET
    return FailureKind.UNREACHABLE if event.error in UNREACHABLE else FailureKind.UNANSWERED


def was_refused(subflow: Subflow, event: MptcpEvent, now_monotonic: float) -> bool:
    """Whether the peer accepted the SYN of a subflow of ours, and then not the third ACK.

    The kernel reports SUB_ESTABLISHED at the SYN/ACK.
    """
    return (
        subflow.state is SubflowState.ESTABLISHED
        and subflow.origin in (Origin.POLICY, Origin.OPERATOR)
        and not subflow.carried
        and now_monotonic - subflow.since < REFUSED_WITHIN_S
        and event.error in (0, ECONNRESET)
    )
