# SPDX-License-Identifier: Apache-2.0
"""Which pairs have fewer subflows than they should have, and how it stands with each. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from pm.model import SUBFLOWS_MAX, Pair, Subflow, SubflowState, Want
from pm.policies.model import Policy
from pm.sessions.history import History
from pm.sessions.local_addresses import LocalAddresses
from pm.sessions.plan import Chooser, Outlook, look_ahead, usable_for, wanted_by
from pm.sessions.session import Session


class PairState(StrEnum):
    """How it stands with a pair that has fewer subflows than wanted."""

    OPENING = "opening"  # a SYN is on its way
    FAILED = "failed"  # tried again later
    STUCK = "stuck"  # established, and nothing is acknowledged
    WAITING = "waiting"  # not tried yet
    NO_ROUTE = "no_route"
    CLOSED = "closed"  # by the operator


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingPair:
    """A pair with fewer working subflows than wanted.

    ``age_s`` and ``retransmits`` are those of the oldest SYN without an answer; ``failures`` in a row, and
    ``retry_in_s`` until the next try. ``reason`` says why, as far as the service knows by itself. None, 0
    and "" where there is no such thing.
    """

    pair: Pair
    state: PairState
    age_s: float | None = None
    retransmits: int | None = None
    failures: int = 0
    retry_in_s: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """What a session should have, as if it had reached ``start``; nothing of it is changed by looking.

    ``session`` is a copy. ``routable`` is what would be wanted if every pair had a route.
    """

    session: Session
    policy: Policy
    addresses: LocalAddresses
    outlook: Outlook
    routable: Mapping[Pair, Want]


def picture_of(
    session: Session, policy: Policy, path_manager: Chooser, local_addresses: LocalAddresses
) -> Picture:
    """``policy`` is the one in force."""
    copy = replace(session, device=session.device or 0, history=History())
    usable = usable_for(copy, local_addresses)
    outlook = look_ahead(copy, policy, path_manager, usable, local_addresses)
    routable = outlook.wanted
    if copy.unroutable:
        routed = replace(copy, unroutable={}, history=History())
        routable = wanted_by(routed, policy, path_manager, usable, local_addresses)
    return Picture(copy, policy, local_addresses, outlook, routable)


def missing_pairs(picture: Picture, syns: Mapping[Pair, int], now: float) -> list[MissingPair]:
    """In the order of their importance. ``syns`` has the retransmits of subflows in SYN_SENT."""
    session = picture.session
    if session.half_closed or not session.managed:
        return []
    flows: dict[Pair, list[Subflow]] = {}
    for subflow in session.subflows:
        flows.setdefault(subflow.pair, []).append(subflow)
    unroutable = (pair for pair in picture.routable if pair in session.unroutable)
    wants = dict.fromkeys([*picture.outlook.wanted, *unroutable])
    found = (
        _missing(session, pair, _want(picture, pair), flows.get(pair, ()), syns.get(pair), now)
        for pair in wants
    )
    return [missing for missing in found if missing][:SUBFLOWS_MAX]


def _want(picture: Picture, pair: Pair) -> int:
    return (picture.outlook.wanted.get(pair) or picture.routable[pair]).subflows


def _missing(
    session: Session, pair: Pair, wanted: int, flows: Sequence[Subflow], retransmits: int | None, now: float
) -> MissingPair | None:
    if sum(s.working for s in flows) >= wanted:
        return None
    retry = session.retries.get(pair) if session.retries else None
    failures, reason = (retry.failures, retry.reason) if retry else (0, "")
    opening = [s.since for s in flows if s.state is SubflowState.OPENING]
    if opening:
        return MissingPair(
            pair=pair,
            state=PairState.OPENING,
            age_s=now - min(opening),
            retransmits=retransmits,
            failures=failures,
            reason=reason,
        )
    if any(s.stuck for s in flows):
        return MissingPair(pair=pair, state=PairState.STUCK, reason="what is sent is not acknowledged")
    if pair in session.unroutable:
        return MissingPair(pair=pair, state=PairState.NO_ROUTE, reason=session.unroutable[pair])
    if session.closed_by_operator and session.closed_by_operator.get(pair, 0) >= wanted - len(flows):
        return MissingPair(pair=pair, state=PairState.CLOSED, reason="closed by hand")
    if retry and now < retry.not_before:
        return MissingPair(
            pair=pair,
            state=PairState.FAILED,
            failures=failures,
            retry_in_s=retry.not_before - now,
            reason=reason,
        )
    return MissingPair(pair=pair, state=PairState.WAITING, failures=failures, reason=reason)
