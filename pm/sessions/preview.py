# SPDX-License-Identifier: Apache-2.0
"""What would be done, without doing it: for a connection of tomorrow, and under another configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pm.clock import Clock, moment
from pm.model import LocalAddress, Origin, Role, Subflow, SubflowState, family_of, interfaces_of
from pm.policies.model import Policy
from pm.sessions.actions import Action, Close, Open, SetBackup
from pm.sessions.endpoint_book import EndpointBook
from pm.sessions.history import History
from pm.sessions.known_ways import Judge, Routes
from pm.sessions.local_addresses import AddressBook, LocalAddresses
from pm.sessions.missing import Picture, picture_of
from pm.sessions.plan import Chooser, plan
from pm.sessions.session import Session, SessionState
from pm.sessions.session_table import SessionTable
from pm.sessions.subflows import Subflows
from pm.sessions.timers import BATCH

ANY_ID = 255  # of an address that has no id yet

Decision = Open | Close | SetBackup


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a connection to ``session.remote`` would get: ``subflows`` beside the initial one, in order.

    ``session`` is made up; its ``unroutable`` has the pairs that are left out, with the reason, and its
    ``complaint`` is what was wrong with the path manager's answer.
    """

    session: Session
    subflows: Sequence[Open] = ()


class Changed(NamedTuple):
    """What another configuration would do to a session that the one in force would not."""

    session: Session
    policy: Policy | None
    decisions: Sequence[Decision]


@dataclass(slots=True)
class Prospect:
    """What another configuration would do. ``changed`` are sessions with something to do, at most so many."""

    sessions: int = 0
    opens: int = 0
    closes: int = 0
    changed: list[Changed] = field(default_factory=list)


class Preview:
    def __init__(
        self,
        *,
        table: SessionTable,
        addresses: AddressBook,
        endpoints: EndpointBook,
        path_managers: Mapping[str, Chooser],
        tried: Mapping[str, Chooser],
        clock: Clock,
    ) -> None:
        """``tried`` are the path managers that answer for sessions that do not exist, or under another
        configuration: one that takes too long there still serves the sessions that exist.
        """
        self._table = table
        self._addresses = addresses
        self._endpoints = endpoints
        self._path_managers = path_managers
        self._tried = tried
        self._clock = clock

    def picture(self, session: Session) -> Picture | None:
        """What a session should have now; None where the service leaves it alone."""
        policy = self._endpoints.in_force(session)
        if policy is None:
            return None
        path_manager = self._path_managers[policy.path_manager.name]
        return picture_of(session, policy, path_manager, self._endpoints.addresses(policy))

    def explain(self, policy: Policy | None, local: str, remote: str, remote_port: int) -> Explanation:
        """For a client's connection from ``local``, as if its ``start`` conditions had been reached."""
        now = moment(self._clock)
        family = family_of(local)
        initial = Subflow(
            local, 0, remote, remote_port, Origin.INITIAL, SubflowState.ESTABLISHED, since=now.monotonic,
            socket_family=family,
        )  # fmt: skip
        session = Session(
            token=0, number=0, role=Role.CLIENT, socket_family=family, local=local, local_port=0,
            remote=remote, remote_port=remote_port, created=now, history=History(),
            state=SessionState.ESTABLISHED, established=now, policy=policy, started=True, device=0,
            subflows=Subflows([initial]),
        )  # fmt: skip
        actions = self._actions(session, self._addresses.current)
        return Explanation(session, [action for action in actions if isinstance(action, Open)])

    async def prospect(
        self,
        policy_of: Callable[[Session], Policy | None],
        addresses: Sequence[LocalAddress],
        judge: Judge,
        limit: int,
    ) -> Prospect:
        """Under other policies, local addresses and ways; in slices, since there may be many sessions."""
        found = Prospect()
        other = self._under(addresses, judge)
        for i, session in enumerate(list(self._table)):
            found.sessions += 1
            if session.state is SessionState.ESTABLISHED:
                self._compare(found, session, policy_of(session), other, limit)
            if i % BATCH == BATCH - 1:
                await asyncio.sleep(0)
        return found

    def _under(self, addresses: Sequence[LocalAddress], judge: Judge) -> LocalAddresses:
        current = self._addresses.current
        usable = tuple(address for address in addresses if address.usable)
        routes = Routes(judge)
        routes.set_addresses(usable)
        ids = {address.ip: ANY_ID for address in usable} | dict(current.ids)
        return replace(current, usable=usable, ids=ids, interfaces=interfaces_of(addresses), routes=routes)

    def _compare(
        self, found: Prospect, session: Session, policy: Policy | None, other: LocalAddresses, limit: int
    ) -> None:
        now = {_key(action) for action in self._actions(_copy(session), self._addresses.current)}
        then = _copy(session)
        changed = then.take_policy(policy)
        decisions = [
            action
            for action in self._actions(then, other)
            if isinstance(action, Open | Close | SetBackup) and _key(action) not in now
        ]
        if not decisions and not changed:
            return
        found.opens += sum(isinstance(decision, Open) for decision in decisions)
        found.closes += sum(isinstance(decision, Close) for decision in decisions)
        if len(found.changed) < limit:
            found.changed.append(Changed(session, policy, decisions))

    def _actions(self, session: Session, addresses: LocalAddresses) -> Sequence[Action]:
        if session.policy is None:
            return ()
        path_manager = self._tried[session.policy.path_manager.name]
        return plan(session, path_manager, addresses, self._clock.monotonic()).actions


def _copy(session: Session) -> Session:
    """The plan writes what it finds into the session that it is given."""
    return replace(session, device=session.device or 0, history=History())


def _key(action: Action) -> tuple[object, ...]:
    match action:
        case Open(pair, _, backup):
            return Open, pair, backup
        case Close(subflow):
            return Close, id(subflow)
        case SetBackup(subflow, backup):
            return SetBackup, id(subflow), backup
    return (type(action), action)
