# SPDX-License-Identifier: Apache-2.0
"""What to do about one session: the difference between the subflows wanted and those there are.

Pure and level-triggered: the same function answers a new session, an announced address, an address
or link that came or went, a failed or stuck subflow, a reload and a restart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pm.model import (
    SUBFLOWS_MAX,
    LocalAddress,
    Origin,
    Pair,
    Subflow,
    SubflowState,
    Want,
    Wanted,
    Way,
    is_loopback,
)
from pm.path_managers.remotes import reachable
from pm.policies.model import Policy
from pm.sessions.actions import Close, Open, Plan, SetBackup, Withdraw
from pm.sessions.announcements import announce, announcements, may_try, withdraw
from pm.sessions.local_addresses import LocalAddresses
from pm.sessions.placement import find_misplaced, find_ways, fits, initial_way
from pm.sessions.session import Retry, Session

SETTLED_S = 10.0  # an idle subflow that lived so long is taken for working
LEFT_OVER_S = 1.0  # when those that open to a withdrawn address are looked at again


class Chooser(Protocol):
    """A path manager."""

    def wanted(self, session: Session, addresses: Sequence[LocalAddress], parameters: Any) -> Wanted:
        """What is asked for ``session``."""


class Outlook(NamedTuple):
    """What a session could have and should have.

    ``usable`` are the local addresses that its sockets can have, ``there`` the ends at which the peer can be
    reached, ``ways`` the ways between them, and ``misplaced`` what ``find_misplaced`` says.
    """

    usable: list[LocalAddress]
    there: Collection[tuple[str, int]]
    ways: Mapping[Pair, Way]
    misplaced: Collection[int]
    wanted: Wanted


def usable_for(session: Session, local_addresses: LocalAddresses) -> list[LocalAddress]:
    """The addresses that its sockets can have. Notes in the session what became of its own address."""
    session.local_ifindex = local_addresses.interfaces.get(session.local) or session.local_ifindex
    session.local_lost = session.local in local_addresses.lost
    return [a for a in local_addresses.usable if fits(session, a)]


def look_ahead(
    session: Session,
    policy: Policy,
    path_manager: Chooser,
    usable: list[LocalAddress],
    local_addresses: LocalAddresses,
) -> Outlook:
    """Asks the path manager. Notes in the session what has no route."""
    there = reachable(session)
    ways = find_ways(session, there, usable, local_addresses)
    session.unroutable = {pair: way.why for pair, way in ways.items() if not way.exists}
    misplaced = find_misplaced(session, ways, local_addresses)
    wanted = wanted_by(session, policy, path_manager, usable, local_addresses)
    return Outlook(usable, there, ways, misplaced, wanted)


def plan(
    session: Session,
    path_manager: Chooser,
    local_addresses: LocalAddresses,
    now: float,
    in_force: Policy | None = None,
) -> Plan:
    """Opens come first and the last working subflow is never closed: make before break.

    ``in_force`` is another policy than the session's, which has none, or one that wants the endpoints.
    """
    made = Plan()
    policy = in_force or session.policy
    if policy is None or not session.managed:
        return made
    usable = usable_for(session, local_addresses)
    outlook: Outlook | None = None
    if session.started or session.local_lost:
        outlook = look_ahead(session, policy, path_manager, usable, local_addresses)
        _open(made, session, policy, outlook, local_addresses, now)
    told = announcements(session, policy, usable, local_addresses)
    announce(made, session, told, local_addresses, now)
    withdraw(made, session, policy, told, usable, local_addresses, now)
    if outlook:
        _replace_stuck(made, session, now)
        _close(made, session, outlook, local_addresses)
    return made


def wanted_by(
    session: Session,
    policy: Policy,
    path_manager: Chooser,
    usable: list[LocalAddress],
    local_addresses: LocalAddresses,
) -> Wanted:
    """What the path manager asks for, if there is more than one path at all."""
    if is_loopback(session.remote) or session.remote in local_addresses.interfaces:
        return {session.initial_pair: Want()}  # this host with itself: all paths are one
    return path_manager.wanted(session, usable, policy.path_manager.parameters)


def _open(
    made: Plan,
    session: Session,
    policy: Policy,
    outlook: Outlook,
    local_addresses: LocalAddresses,
    now: float,
) -> None:
    _, there, ways, misplaced, wanted = outlook
    have: dict[Pair, list[Subflow]] = {}
    take_back: dict[str, int] = {}
    for subflow in session.subflows:
        have.setdefault(subflow.pair, []).append(subflow)
    # Those that open and are not wanted any more, such as to an address that the peer has withdrawn, count
    # against the cap. They are closed once their source port is known.
    left_over = sum(
        s.state is SubflowState.OPENING and (s.pair not in wanted or (s.remote, s.remote_port) not in there)
        for s in session.subflows
    )
    if left_over and session.policy:
        spare = session.policy.path_manager.max_subflows - sum(want.subflows for want in wanted.values())
        left_over -= min(left_over, max(0, spare))
    room = SUBFLOWS_MAX - opened_here(session)
    for pair, want in wanted.items():
        flows = have.get(pair, [])
        made.actions += (
            SetBackup(s, want.backup, "backup" if want.backup else "primary")
            for s in flows
            if s.backup != want.backup
            and not s.backup_by_hand
            and s.state is SubflowState.ESTABLISHED
            and s.origin in (Origin.INITIAL, Origin.POLICY)
        )
        closed = session.closed_by_operator.get(pair, 0) if session.closed_by_operator else 0
        lost = sum(s.stuck or id(s) in misplaced for s in flows)
        missing = min(want.subflows - closed - (len(flows) - lost), room)
        # A pair that exists may stay; it is opened only where the peer can be reached.
        if missing <= 0 or session.half_closed or (pair.remote, pair.remote_port) not in there:
            continue
        if pair.remote in local_addresses.interfaces:
            continue  # the peer announced an address of ours
        way = ways.get(pair) or initial_way(session, pair)
        local_id = local_addresses.id_of(session, pair.local)
        if way is None or not way.exists or local_id is None:
            continue
        retry = session.retries.get(pair) if session.retries else None
        if retry and local_id and _takes_back(session, pair, retry):
            take_back[pair.local] = local_id
            continue
        if retry and now < retry.not_before:
            made.look_again(retry.not_before)
            continue
        held = min(left_over, missing)
        if held:
            left_over -= held
            made.look_again(now + LEFT_OVER_S)
        room -= missing
        open_ = Open(pair, local_id, want.backup, policy.path_manager.name, way.ifindex)
        made.actions += [open_] * (missing - held)
    made.actions += (
        Withdraw(ip, local_id, "the peer counts a subflow from it that is dead", announce_first=True)
        for ip, local_id in take_back.items()
        if may_try(made, session, ip, now)
    )


def _takes_back(session: Session, pair: Pair, retry: Retry) -> bool:
    """Whether the peer refuses a pair since it counts a half of it that died in silence here.

    It closes that half once it is told that the address is gone, with all others from that address.
    """
    alive = [s for s in session.subflows if not s.stuck]
    return (
        retry.refused
        and retry.left_half
        and any(s.working for s in alive)
        and all(s.local != pair.local for s in alive)
    )


def opened_here(session: Session) -> int:
    """The subflows that this end opened, the initial one included."""
    return sum(s.origin is not Origin.PEER for s in session.subflows)


def _replace_stuck(made: Plan, session: Session, now: float) -> None:
    """Close a stuck subflow once another on its pair works.

    Where the peer refuses the other one (its limit counts the stuck one, and goes on counting it after
    we close it, since no FIN arrives), the address id is taken back: the peer closes its half then.
    """
    working = [s for s in session.subflows if s.working]
    for stuck in [s for s in session.subflows if s.stuck and s.origin in (Origin.INITIAL, Origin.POLICY)]:
        later = [s for s in session.subflows if s.stuck and s.pair == stuck.pair and s.since > stuck.since]
        if later:  # small packets pass there, the SYN among them, and no data
            made.actions.append(Close(stuck, "stuck: a later subflow of the pair is stuck too"))
            continue
        twins = [s for s in working if s.pair == stuck.pair]
        if any(s.carried or now >= s.since + SETTLED_S for s in twins):
            made.actions.append(Close(stuck, "stuck: another subflow of the pair works"))
            continue
        if twins:
            made.look_again(min(s.since for s in twins) + SETTLED_S)
            continue
        retry = session.retries.get(stuck.pair) if session.retries else None
        used = any(s.local_id == stuck.local_id for s in working)
        if retry and retry.refused and working and not used:
            made.actions.append(Withdraw(stuck.local, stuck.local_id, "stuck, and the peer takes no other"))
            made.actions.append(Close(stuck, "stuck: the peer takes no other while it has this one"))


def _close(
    made: Plan,
    session: Session,
    outlook: Outlook,
    local_addresses: LocalAddresses,
) -> None:
    _, there, _, misplaced, wanted = outlook
    working = {s.pair for s in session.subflows if s.working and id(s) not in misplaced}
    counts: dict[Pair, int] = {}
    closes: list[Close] = []
    planned = {id(action.subflow) for action in made.actions if isinstance(action, Close)}
    for subflow in session.subflows:
        if id(subflow) in planned:
            continue
        if subflow.local in local_addresses.lost:
            if subflow.local_port:  # known also for one still opening, after a dump
                closes.append(Close(subflow, "address lost"))
            continue
        pair = subflow.pair
        want = wanted.get(pair)
        if id(subflow) in misplaced:
            opening = subflow.state is SubflowState.OPENING
            if subflow.local_port and (opening or want is None or pair in working):
                closes.append(Close(subflow, "packets from its address leave by another interface"))
            continue
        if subflow.stuck and want:
            continue  # see _replace_stuck
        if want is None and pair in session.unroutable:
            continue  # routes come and go: it ends by itself where no packet gets through
        if want is None and session.deny_join_id0 and pair.remote == session.remote:
            continue  # not wanted because it may not be opened again: what exists may stay
        counts[pair] = counts.get(pair, 0) + 1
        surplus = want is None or counts[pair] > want.subflows
        opening = subflow.state is SubflowState.OPENING
        if opening and subflow.local_port and (pair.remote, pair.remote_port) not in there:
            closes.append(Close(subflow, "the peer withdrew its address"))
        elif surplus and subflow.origin is Origin.POLICY and (subflow.local_port or not opening):
            closes.append(Close(subflow, "not wanted by the policy"))
    closing = {id(c.subflow) for c in closes} | planned
    established = [s for s in session.subflows if s.state is SubflowState.ESTABLISHED]
    if established and all(id(s) in closing for s in established):
        # Keep the newest: it goes once another one is established.
        closes = [c for c in closes if c.subflow is not established[-1]]
    made.actions += closes
