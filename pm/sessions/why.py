# SPDX-License-Identifier: GPL-2.0-only
"""Why a session has no other path, or not all that it could have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pm.findings import Finding
from pm.model import Pair
from pm.sessions.session import Session


class PairState(StrEnum):
    """Why a pair has fewer subflows than it could have."""

    OPENING = "opening"  # a SYN is on its way
    FAILED = "failed"  # tried again later
    WAITING = "waiting"  # not tried yet
    NO_ROUTE = "no_route"
    CLOSED = "closed"  # by the operator
    NOT_WANTED = "not_wanted"  # by the path manager
    NOT_USABLE = "not_usable"  # one of its addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingPair:
    """A pair without an established subflow, or with fewer than wanted.

    ``age_s`` and ``retransmits`` are those of the SYN of a subflow that opens; ``failures`` in a row, and
    ``retry_in_s`` until the next try; None where it is not so.
    """

    pair: Pair
    state: PairState
    age_s: float | None = None
    retransmits: int | None = None
    failures: int = 0
    retry_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class Why:
    """``findings`` are about the session as a whole, ``pairs`` have those of each missing pair."""

    token: int
    session: Session | None
    findings: Sequence[Finding] = ()
    pairs: Sequence[tuple[MissingPair, Sequence[Finding]]] = ()


def session_findings(session: Session) -> list[Finding]:
    """What holds for all pairs of a session."""
    found: list[Finding] = []
    if not session.managed:
        found.append(
            Finding(
                "not_managed",
                "The kernel's own path manager has this session: it began before the service did.",
                commands=("ip mptcp endpoint show", "ip mptcp limits show"),
            )
        )
    if session.half_closed:
        found.append(Finding("half_closed", "One end has closed: no subflow can be opened any more."))

    return found
