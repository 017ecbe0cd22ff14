# SPDX-License-Identifier: GPL-2.0-only
"""What to do about one session: the difference between the subflows wanted and those there are.

Pure and level-triggered: the same function answers a new session, an announced address, an address
or link that came or went, a failed subflow, a reload and a restart.
"""

from __future__ import annotations

from pm.model import LocalAddress, Origin, Pair, Role, Subflow, SubflowState, Wanted
from pm.path_managers.base import PathManager
from pm.sessions.actions import Action, Announce, Close, Open, SetBackup, Withdraw
from pm.sessions.local_addresses import LocalAddresses
from pm.sessions.session import Session


def plan(
    session: Session, path_manager: type[PathManager], local_addresses: LocalAddresses, now: float
) -> tuple[list[Action], float | None]:
    """The actions due now, in order, and when (monotonic clock) a retry is due, if any.

    For a session that is not established yet: those due once it is.
    Opens come first and the last working subflow is never closed: make before break.
    """
    policy = session.policy
    if policy is None or not session.managed:
        return [], None
    usable = [a for a in local_addresses.usable if session.socket_family == 6 or a.family == 4]
    initial_lost = session.local not in local_addresses.up
    if session.started or initial_lost:
        wanted = path_manager.wanted(session, usable, policy.path_manager.parameters)
    else:
        wanted = {}
    actions, retry_at = _open(session, wanted, usable, local_addresses, now)
    if policy.announce and session.role is Role.SERVER and session.started:
        actions += _announce(session, usable, local_addresses)
    actions += _withdraw(session, usable, local_addresses)
    if session.started or initial_lost:
        actions += _close(session, wanted, local_addresses)
    return actions, retry_at


def _open(
    session: Session, wanted: Wanted, usable: list[LocalAddress], local_addresses: LocalAddresses, now: float
) -> tuple[list[Action], float | None]:
    actions: list[Action] = []
    retry_at: float | None = None
    have: dict[Pair, list[Subflow]] = {}
    for subflow in session.subflows:
        have.setdefault(subflow.pair, []).append(subflow)
    sources = {a.ip for a in usable}
    if session.local in local_addresses.up:
        sources.add(session.local)  # the application chose it itself
    for pair, want in wanted.items():
        flows = have.get(pair, [])
        actions += (
            SetBackup(s, want.backup, "backup" if want.backup else "primary")
            for s in flows
            if s.backup != want.backup
            and not s.backup_by_hand
            and s.state is SubflowState.ESTABLISHED
            and s.origin in (Origin.INITIAL, Origin.POLICY)
        )
        closed = session.closed_by_operator.get(pair, 0) if session.closed_by_operator else 0
        missing = want.subflows - closed - len(flows)
        if missing <= 0 or pair.local not in sources:
            continue
        retry = session.retries.get(pair) if session.retries else None
        if retry and now < retry.not_before:
            retry_at = min(retry_at or retry.not_before, retry.not_before)
            continue
        local_id = local_addresses.id_of(session, pair.local)
        if local_id is not None:
            reason = session.policy.path_manager.name if session.policy else ""
            actions += [Open(pair, local_id, want.backup, reason)] * missing
    return actions, retry_at


def _announce(session: Session, usable: list[LocalAddress], local_addresses: LocalAddresses) -> list[Action]:
    announced = session.announced or {}
    return [
        Announce(a.ip, local_id, f"address of {a.ifname}")
        for a in usable
        if a.ip != session.local
        and a.ip not in announced
        and (local_id := local_addresses.id_of(session, a.ip)) is not None
    ]


def _withdraw(session: Session, usable: list[LocalAddress], local_addresses: LocalAddresses) -> list[Action]:
    """RM_ADDR for what the peer knows of us and that is gone.

    Comes before the subflows are closed: SUBFLOW_DESTROY makes the kernel forget the address id.
    """
    usable_ips = {a.ip for a in usable}
    known = dict.fromkeys(session.announced or ())
    gone = [ip for ip in known if ip not in usable_ips]
    alive = [
        s for s in session.subflows if s.state is SubflowState.ESTABLISHED and s.local in local_addresses.up
    ]
    if alive:
        lost = (s.local for s in session.subflows if s.local not in local_addresses.up)
        gone += [ip for ip in dict.fromkeys(lost) if ip not in known]
    return [
        Withdraw(ip, local_id, "address lost")
        for ip in gone
        if (local_id := local_addresses.id_of(session, ip)) is not None
    ]


def _close(session: Session, wanted: Wanted, local_addresses: LocalAddresses) -> list[Action]:
    counts: dict[Pair, int] = {}
    closes: list[Close] = []
    for subflow in session.subflows:
        if subflow.local not in local_addresses.up:
            if subflow.local_port:  # known also for one still opening, after a dump
                closes.append(Close(subflow, "address lost"))
            continue
        pair = subflow.pair
        want = wanted.get(pair)
        counts[pair] = counts.get(pair, 0) + 1
        surplus = want is None or counts[pair] > want.subflows
        if surplus and subflow.origin is Origin.POLICY and subflow.state is SubflowState.ESTABLISHED:
            closes.append(Close(subflow, "not wanted by the policy"))
    closing = {id(c.subflow) for c in closes}
    working = [s for s in session.subflows if s.state is SubflowState.ESTABLISHED]
    if working and all(id(s) in closing for s in working):
        # Keep the newest: it goes once another one is established.
        closes = [c for c in closes if c.subflow is not working[-1]]
    return list(closes)
