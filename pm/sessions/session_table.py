# SPDX-License-Identifier: GPL-2.0-only
"""The session table: what the kernel's events and dumps say there is.

No I/O and no decisions; times are handed in. Every change is recorded in the session's history.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from errno import errorcode
from typing import NamedTuple

from pm.kernel import Event, Found
from pm.model import Origin, Pair, RemoteAddress, Role, Subflow, SubflowState
from pm.sessions.actions import Open
from pm.sessions.history import History
from pm.sessions.session import Retry, Session, SessionState

RETRY_FIRST_S = 1.0
RETRY_CAP_S = 300.0

# MP_TCPRST reasons (RFC 8684, section 3.6)
RESET_REASONS = {
    1: "MPTCP-specific error",
    2: "lack of resources",
    3: "administratively prohibited",
    4: "too much outstanding data",
    5: "unacceptable performance",
    6: "middlebox interference",
}


class Merged(NamedTuple):
    """What ``SessionTable.merge`` found: changed sessions, and those and subflows a dump did not show."""

    changed: list[Session]
    sessions_missing: list[Session]
    subflows_missing: list[tuple[Session, Subflow]]


class SessionTable:
    """Sessions by token, oldest first."""

    def __init__(self) -> None:
        self.by_token: dict[int, Session] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self.by_token)

    def __iter__(self) -> Iterator[Session]:
        return iter(self.by_token.values())

    def get(self, token: int) -> Session | None:
        return self.by_token.get(token)

    def create(self, event: Event, now: float) -> Session:
        """MPTCP_EVENT_CREATED, or ESTABLISHED of a session whose creation was not seen."""
        known = self.by_token.get(event.token)
        if known:  # a dump was faster
            return known
        initial = Subflow(
            event.local,
            event.local_port,
            event.remote,
            event.remote_port,
            Origin.INITIAL,
            SubflowState.ESTABLISHED,
            event.local_id,
            event.remote_id,
            socket_family=event.family,
        )
        session = Session(
            token=event.token,
            number=next(self._numbers),
            role=Role.SERVER if event.server_side else Role.CLIENT,
            socket_family=event.family,
            local=event.local,
            local_port=event.local_port,
            remote=event.remote,
            remote_port=event.remote_port,
            created=now,
            history=History(),
            deny_join_id0=event.deny_join_id0,
            subflows=[initial],
        )
        session.history.add(now, "created")
        self.by_token[event.token] = session
        return session

    def establish(self, event: Event, now: float) -> Session:
        """MPTCP_EVENT_ESTABLISHED."""
        session = self.create(event, now)
        if session.state is SessionState.CREATED:
            self._establish(session, now)
        return session

    def _establish(self, session: Session, now: float) -> None:
        session.state = SessionState.ESTABLISHED
        session.established = now
        session.history.add(now, "established")

    def close(self, token: int) -> Session | None:
        """MPTCP_EVENT_CLOSED: forget the session; returns it, or None where it was not known."""
        session = self.by_token.pop(token, None)
        if session:
            session.state = SessionState.CLOSED
        return session

    def announced(self, session: Session, remote: RemoteAddress, now: float) -> bool:
        """MPTCP_EVENT_ANNOUNCED: ADD_ADDR from the peer. False where it says nothing new."""
        if remote in session.remotes:
            return False
        others = tuple(r for r in session.remotes if r.address_id != remote.address_id)
        session.remotes = (*others, remote)
        session.history.add(now, "remote_address_announced", remote)
        return True

    def removed(self, session: Session, address_id: int, now: float) -> bool:
        """MPTCP_EVENT_REMOVED: RM_ADDR from the peer; the kernel closes its subflows itself."""
        gone = [r for r in session.remotes if r.address_id == address_id]
        session.remotes = tuple(r for r in session.remotes if r.address_id != address_id)
        session.history.add(now, "remote_address_removed", gone[0] if gone else f"id {address_id}")
        return bool(gone)

    def opening(self, session: Session, action: Open, origin: Origin, now: float) -> Subflow:
        """A subflow this end asked for; SUB_ESTABLISHED or SUB_CLOSED tells how it went."""
        subflow = Subflow(
            action.pair.local,
            0,
            action.pair.remote,
            action.pair.remote_port,
            origin,
            SubflowState.OPENING,
            action.local_id,
            backup=action.backup,
            socket_family=6 if ":" in action.pair.local else 4,
        )
        session.subflows.append(subflow)
        session.history.add(now, "subflow_opening", action.pair)
        return subflow

    def joined(self, session: Session, event: Event, now: float) -> Subflow:
        """MPTCP_EVENT_SUB_ESTABLISHED: one we were opening, or the peer's."""
        if session.state is SessionState.CREATED:  # ESTABLISHED was lost: nobody joins before
            self._establish(session, now)
        subflow = self._opening_of(session, event)
        if subflow is None:
            subflow = find_subflow(session, event.local, event.local_port, event.remote, event.remote_port)
        if subflow is None:
            subflow = Subflow(
                event.local,
                event.local_port,
                event.remote,
                event.remote_port,
                Origin.PEER,
                SubflowState.ESTABLISHED,
                socket_family=event.family,
            )
            session.subflows.append(subflow)
        else:
            subflow.local_port = event.local_port
            subflow.state = SubflowState.ESTABLISHED
            if session.retries:
                session.retries.pop(subflow.pair, None)
        subflow.local_id = event.local_id
        subflow.remote_id = event.remote_id
        subflow.socket_family = event.family
        subflow.peer_backup = event.backup
        session.history.add(now, "subflow_established", subflow.pair)
        return subflow

    def identify(self, session: Session, subflow: Subflow, found: Found | None, now: float) -> None:
        """Say whose a subflow is that an event told of, by what sock_diag knows; None where it is gone."""
        if found:
            subflow.origin = _origin(found)
            subflow.backup = found.backup
            self._learn_remote(session, found, now)

    def _learn_remote(self, session: Session, record: Found, now: float) -> None:
        """Where this end opened a subflow to, the peer announced before the service watched."""
        known = any(remote.address_id == record.remote_id for remote in session.remotes)
        if known or not record.remote_id or not record.opened_here or record.is_initial:
            return
        usual = session.role is Role.CLIENT and record.remote_port == session.remote_port
        port = 0 if usual else record.remote_port
        self.announced(session, RemoteAddress(record.remote, port, record.remote_id), now)

    def parted(self, session: Session, event: Event, now: float, now_monotonic: float) -> Subflow | None:
        """MPTCP_EVENT_SUB_CLOSED. None for one that we closed ourselves and forgot already."""
        subflow = find_subflow(session, event.local, event.local_port, event.remote, event.remote_port)
        if subflow is None:
            subflow = self._opening_of(session, event)
        if subflow is None:
            return None
        self.forget(session, subflow)
        if event.reset_reason >= 0:
            reason = RESET_REASONS.get(event.reset_reason, "reset by the peer")
        elif event.error:
            reason = f"{errorcode.get(event.error, event.error)}: {os.strerror(event.error)}"
        else:
            reason = "closed by the peer"
        session.history.add(now, "subflow_closed", f"{subflow.pair}: {reason}")
        if subflow.origin in (Origin.POLICY, Origin.INITIAL):
            self.failed(session, subflow.pair, reason, now_monotonic)
        return subflow

    def failed(self, session: Session, pair: Pair, reason: str, now_monotonic: float) -> Retry:
        """Note a failure of a pair: capped exponential backoff until the next try."""
        if session.retries is None:
            session.retries = {}
        known = session.retries.get(pair)
        failures = known.failures + 1 if known else 1
        delay = min(RETRY_CAP_S, RETRY_FIRST_S * 2 ** min(failures - 1, 16))
        retry = Retry(failures, now_monotonic + delay, reason)
        session.retries[pair] = retry
        return retry

    def forget(self, session: Session, subflow: Subflow) -> None:
        """Take a subflow out of the table."""
        # By identity: subflows that are still opening look alike.
        session.subflows = [s for s in session.subflows if s is not subflow]

    def priority(self, session: Session, event: Event, now: float) -> None:
        """MPTCP_EVENT_SUB_PRIORITY: the peer's MP_PRIO."""
        subflow = find_subflow(session, event.local, event.local_port, event.remote, event.remote_port)
        if subflow:
            subflow.peer_backup = event.backup
            what = "peer_set_backup" if event.backup else "peer_cleared_backup"
            session.history.add(now, what, subflow.pair)

    def _opening_of(self, session: Session, event: Event) -> Subflow | None:
        pair = Pair(event.local, event.remote, event.remote_port)
        for subflow in session.subflows:
            if subflow.state is SubflowState.OPENING and subflow.pair == pair:
                return subflow
        return None

    def merge(self, found: Iterable[Found], now: float) -> Merged:
        """Make the table agree with a dump: at the service's start and after lost events.

        A dump of a busy host can miss a socket, so what it lacks is returned, not removed: the
        caller asks the kernel about each of these before it calls ``close`` or ``forget``.
        """
        groups: dict[int, list[Found]] = {}
        for record in found:
            groups.setdefault(record.token, []).append(record)
        merged = Merged([], [], [])
        for token, records in groups.items():
            session = self.by_token.get(token)
            if session is None:
                merged.changed.append(self._adopt(records, now))
            elif self._update(session, records, now, merged):
                merged.changed.append(session)
        merged.sessions_missing.extend(s for s in self if s.token not in groups)
        return merged

    def _adopt(self, records: list[Found], now: float) -> Session:
        """A session older than the service, from its subflows."""
        first = next((r for r in records if r.is_initial), records[0])
        session = Session(
            token=first.token,
            number=next(self._numbers),
            role=Role.CLIENT if first.opened_here else Role.SERVER,
            socket_family=first.socket_family,
            local=first.local,
            local_port=first.local_port,
            remote=first.remote,
            remote_port=first.remote_port,
            created=now,
            history=History(),
            cgroup_id=first.cgroup_id,
        )
        session.history.add(now, "found")
        session.local_ids = {r.local: r.local_id for r in records if r.local_id}
        self.by_token[first.token] = session
        self._update(session, records, now, Merged([], [], []))
        return session

    def _update(self, session: Session, records: list[Found], now: float, merged: Merged) -> bool:
        changed = False
        session.cgroup_id = session.cgroup_id or records[0].cgroup_id
        if session.state is SessionState.CREATED and any(
            r.is_fully_established if r.is_initial else r.is_established for r in records
        ):
            session.state = SessionState.ESTABLISHED
            session.established = now
            changed = True
        unmatched = list(session.subflows)
        for record in records:
            subflow = find_subflow(
                session, record.local, record.local_port, record.remote, record.remote_port
            )
            if subflow is None and record.is_closing:
                continue  # closed on command, and forgotten
            if subflow is None:
                subflow = next(
                    (
                        s
                        for s in unmatched
                        if s.state is SubflowState.OPENING
                        and s.pair == Pair(record.local, record.remote, record.remote_port)
                    ),
                    None,
                )
            if subflow is None:
                subflow = Subflow(
                    record.local,
                    record.local_port,
                    record.remote,
                    record.remote_port,
                    _origin(record),
                    SubflowState.OPENING,
                    backup=record.backup,
                )
                session.subflows.append(subflow)
                session.history.add(now, "subflow_found", subflow.pair)
                self._learn_remote(session, record, now)
                changed = True
            else:
                unmatched = [s for s in unmatched if s is not subflow]
            if record.is_established and subflow.state is SubflowState.OPENING:
                subflow.state = SubflowState.ESTABLISHED
                changed = True
            subflow.local_port = record.local_port
            subflow.local_id, subflow.remote_id = record.local_id, record.remote_id
            subflow.socket_family = record.socket_family
            subflow.backup, subflow.peer_backup = record.backup, record.peer_backup
        merged.subflows_missing.extend((session, s) for s in unmatched)
        return changed


def find_subflow(
    session: Session, local: str, local_port: int, remote: str, remote_port: int
) -> Subflow | None:
    """The subflow with this 4-tuple."""
    for subflow in session.subflows:
        if (
            subflow.local_port == local_port
            and subflow.remote_port == remote_port
            and subflow.local == local
            and subflow.remote == remote
        ):
            return subflow
    return None


def _origin(record: Found) -> Origin:
    if record.is_initial:
        return Origin.INITIAL
    # What this end opened before the service watched is taken for a path manager's: it may go.
    return Origin.POLICY if record.opened_here else Origin.PEER
