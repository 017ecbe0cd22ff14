# SPDX-License-Identifier: Apache-2.0
"""What failed in one session since it last worked: noted, and forgotten again."""

from __future__ import annotations

from pm.clock import Moment
from pm.model import Origin, Pair, Subflow, SubflowState
from pm.path_managers.remotes import reachable
from pm.sessions.backoff import PROVEN_S, next_retry, retry_early
from pm.sessions.session import FailureKind, Retry, Session

FAILURES_MAX = 256  # pairs of a session that are remembered


def note_loss(
    session: Session,
    subflow: Subflow,
    reason: str,
    now: Moment,
    *,
    kind: FailureKind = FailureKind.ENDED,
    silent: bool = False,
) -> None:
    """A subflow ended that nobody closed here: its pair failed, if this end may open it again.

    ``silent``: maybe the peer was not told, and keeps its half.
    """
    pair = subflow.pair
    if subflow.origin not in (Origin.POLICY, Origin.INITIAL):
        return
    if (pair.remote, pair.remote_port) not in reachable(session):
        return
    if subflow.state is SubflowState.ESTABLISHED and _has_proven(subflow, now.monotonic):
        forget_failures(session, pair)
    left_half = silent and subflow.state is SubflowState.ESTABLISHED
    note_failure(session, pair, reason, now.monotonic, kind=kind, left_half=left_half)


def note_failure(
    session: Session,
    pair: Pair,
    reason: str,
    now_monotonic: float,
    *,
    kind: FailureKind = FailureKind.ENDED,
    left_half: bool = False,
) -> Retry:
    """Note a failure of a pair: capped exponential backoff until the next try."""
    if session.retries is None:
        session.retries = {}
    before = session.retries.pop(pair, None)
    if len(session.retries) >= FAILURES_MAX:  # the oldest: a peer can name address after address
        del session.retries[next(iter(session.retries))]
    retry = session.retries[pair] = next_retry(before, reason, now_monotonic, kind=kind, left_half=left_half)
    return retry


def forget_failures(session: Session, pair: Pair) -> None:
    """The pair works."""
    if session.retries and session.retries.pop(pair, None) and not session.retries:
        session.retries = None


def forget_what_works(session: Session, now_monotonic: float) -> None:
    """Forget the failures of pairs that have a subflow which came after them and has proven itself."""
    for subflow in session.subflows:
        retry = session.retries.get(subflow.pair) if session.retries else None
        if (
            retry
            and subflow.working
            and subflow.since > retry.failed_at
            and _has_proven(subflow, now_monotonic)
        ):
            forget_failures(session, subflow.pair)


def forget_halves(session: Session, ip: str) -> None:
    """The peer was told to close what it has from a local address: it has room for another subflow."""
    for pair, retry in list((session.retries or {}).items()):
        if pair.local == ip and retry.left_half:
            forget_failures(session, pair)


def try_soon(session: Session, remote: str, now_monotonic: float) -> None:
    """The peer announced an address: its pairs are tried early."""
    for pair, retry in (session.retries or {}).items():
        if pair.remote == remote:
            retry_early(retry, now_monotonic)


def note_refusal(session: Session, ip: str, reason: str, now_monotonic: float) -> None:
    """The kernel refused to announce or withdraw an address: capped exponential backoff."""
    before = session.address_retries.get(ip) if session.address_retries else None
    retry = next_retry(before, reason, now_monotonic)
    session.address_retries = {**(session.address_retries or {}), ip: retry}


def forget_refusal(session: Session, ip: str) -> None:
    """It has announced or withdrawn the address."""
    if session.address_retries and session.address_retries.pop(ip, None) and not session.address_retries:
        session.address_retries = None


def _has_proven(subflow: Subflow, now_monotonic: float) -> bool:
    """Whether an established subflow works: its SYN/ACK alone says little (RFC 8684, section 3.2)."""
    return subflow.carried or now_monotonic - subflow.since >= PROVEN_S
