# SPDX-License-Identifier: Apache-2.0
"""The session table: what the kernel's events and dumps say there is.

No I/O and no decisions; times are handed in. Every change is recorded in the session's history.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pm.clock import Moment
from pm.kernel import MptcpEvent, SubflowAddress, SubflowRecord
from pm.model import Origin, RemoteAddress, Role, Subflow, SubflowState, family_of, is_link_local
from pm.path_managers.remotes import reachable
from pm.sessions.actions import Open
from pm.sessions.closing_reasons import SILENT, Ending, closing_reason, failure_kind, was_refused
from pm.sessions.failures import note_loss, try_soon
from pm.sessions.history import History, HistoryEvent
from pm.sessions.session import Session, SessionState

OnClosed = Callable[[Session, Subflow, str, Moment], None]
REMOTES_MAX = 32  # announced addresses of a session that are used; there are 255 ids


class SessionTable:
    """Sessions by token, oldest first. ``address_ids`` are those of the namespace, by address.

    ``judge`` says why no subflow of a session may go to an announced address, "" if it may. ``on_closed``
    hears of each subflow that is taken out of the table, and why.
    """

    def __init__(
        self,
        address_ids: Mapping[str, int],
        judge: Callable[[Session, RemoteAddress], str] = lambda session, remote: "",
        on_closed: OnClosed = lambda session, subflow, reason, now: None,
    ) -> None:
        self.by_token: dict[int, Session] = {}
        self._address_ids = address_ids
        self._judge = judge
        self._on_closed = on_closed
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self.by_token)

    def __iter__(self) -> Iterator[Session]:
        return iter(self.by_token.values())

    def get(self, token: int) -> Session | None:
        return self.by_token.get(token)

    def create(self, event: MptcpEvent, now: Moment) -> Session:
        """MPTCP_EVENT_CREATED, or ESTABLISHED of a session whose creation was not seen."""
        known = self.by_token.get(event.token)
        if known:  # a dump was faster
            return known
        session = self.add(
            event,
            role=Role.SERVER if event.server_side else Role.CLIENT,
            socket_family=event.family,
            now=now,
        )
        session.deny_join_id0 = event.deny_join_id0
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
            since=now.monotonic,
        )
        session.subflows.append(initial)
        session.history.add(now, HistoryEvent.CREATED)
        return session

    def add(self, initial: SubflowAddress, *, role: Role, socket_family: int, now: Moment) -> Session:
        """A new session without subflows; ``initial`` has its token and the ends of its initial subflow."""
        session = Session(
            token=initial.token,
            number=next(self._numbers),
            role=role,
            socket_family=socket_family,
            local=initial.local,
            local_port=initial.local_port,
            remote=initial.remote,
            remote_port=initial.remote_port,
            created=now,
            history=History(),
        )
        self.by_token[initial.token] = session
        return session

    def socket_known(self, session: Session, device: int, mark: int) -> None:
        """To what the initial socket is bound, and its SO_MARK.

        The kernel binds sockets with link-local addresses by itself: that says nothing of the application.
        """
        session.device, session.mark = 0 if is_link_local(session.remote) else device, mark
        for subflow in session.subflows:
            if subflow.origin is Origin.INITIAL:
                subflow.ifindex = device

    def establish(self, event: MptcpEvent, now: Moment) -> Session:
        """MPTCP_EVENT_ESTABLISHED."""
        session = self.create(event, now)
        if session.state is SessionState.CREATED:
            self.mark_established(session, now)
        return session

    def mark_established(self, session: Session, now: Moment) -> None:
        """The session takes commands from now on."""
        session.state = SessionState.ESTABLISHED
        session.established = now
        session.history.add(now, HistoryEvent.ESTABLISHED)

    def close(self, token: int) -> Session | None:
        """MPTCP_EVENT_CLOSED: forget the session; returns it, or None where it was not known."""
        return self.by_token.pop(token, None)

    def remote_announced(self, session: Session, remote: RemoteAddress, now: Moment) -> bool:
        """MPTCP_EVENT_ANNOUNCED: ADD_ADDR from the peer. False where it changes nothing."""
        if remote in session.remotes or remote in session.refused_remotes:
            return False
        replaced = self._forget_remote(session, remote.address_id)
        reason = self.refusal_of(session, remote)
        if reason:
            session.refused_remotes = (*session.refused_remotes, remote)
            session.history.add(now, HistoryEvent.REMOTE_ADDRESS_REFUSED, f"{remote.ip}: {reason}")
            return bool(replaced)
        session.remotes = (*session.remotes, remote)
        try_soon(session, remote.ip, now.monotonic)
        session.history.add(now, HistoryEvent.REMOTE_ADDRESS_ANNOUNCED, remote)
        return True

    def judge_remotes(self, session: Session) -> None:
        """Judge all that the peer announced again: the rules, or our own addresses, have changed."""
        known = *session.remotes, *session.refused_remotes
        session.remotes = ()
        self._take_or_refuse(session, known)

    def _take_or_refuse(self, session: Session, remotes: Iterable[RemoteAddress]) -> None:
        refused = []
        for remote in remotes:
            if self.refusal_of(session, remote):
                refused.append(remote)
            else:
                session.remotes = (*session.remotes, remote)
        session.refused_remotes = tuple(refused)

    def refusal_of(self, session: Session, remote: RemoteAddress) -> str:
        """Why no subflow goes to an announced address; "" where one may."""
        if len(session.remotes) >= REMOTES_MAX:
            return f"more than {REMOTES_MAX} addresses"
        return self._judge(session, remote)

    def _forget_remote(self, session: Session, address_id: int) -> Sequence[RemoteAddress]:
        """Those that were used. Another that found no place may have it now."""
        gone = [r for r in session.remotes if r.address_id == address_id]
        if gone:
            session.remotes = tuple(r for r in session.remotes if r.address_id != address_id)
        if session.refused_remotes:
            refused = (r for r in session.refused_remotes if r.address_id != address_id)
            session.refused_remotes = tuple(refused)
            if len(session.remotes) + len(gone) == REMOTES_MAX:
                self._take_or_refuse(session, session.refused_remotes)
        return gone

    def remote_removed(self, session: Session, address_id: int, now: Moment) -> bool:
        """MPTCP_EVENT_REMOVED: RM_ADDR from the peer; the kernel closes its subflows itself.

        False where it says nothing new.
        """
        gone = self._forget_remote(session, address_id)
        news = bool(gone) or (address_id == 0 and not session.initial_removed)
        if not news:
            return False
        session.initial_removed = session.initial_removed or address_id == 0
        session.history.add(now, HistoryEvent.REMOTE_ADDRESS_REMOVED, gone[0] if gone else f"id {address_id}")
        return True

    def subflow_opening(self, session: Session, action: Open, origin: Origin, now: Moment) -> Subflow:
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
            socket_family=family_of(action.pair.local),
            since=now.monotonic,
            ifindex=action.ifindex,
        )
        session.subflows.append(subflow)
        session.history.add(now, HistoryEvent.SUBFLOW_OPENING, action.pair)
        return subflow

    def subflow_established(self, session: Session, event: MptcpEvent, now: Moment) -> Subflow:
        """MPTCP_EVENT_SUB_ESTABLISHED: one we were opening, or the peer's."""
        if session.state is SessionState.CREATED:  # ESTABLISHED was lost: nobody joins before
            self.mark_established(session, now)
        subflow = session.subflows.find_end_or_opening(event)
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
            session.subflows.learn_port(subflow, event.local_port)
            subflow.state = SubflowState.ESTABLISHED
        subflow.since = now.monotonic
        self.learn_local_id(session, event)
        subflow.local_id = event.local_id
        subflow.remote_id = event.remote_id
        subflow.socket_family = event.family
        subflow.peer_backup = event.backup
        session.history.add(now, HistoryEvent.SUBFLOW_ESTABLISHED, subflow.pair)
        return subflow

    def identify(self, session: Session, subflow: Subflow, found: SubflowRecord | None, now: Moment) -> None:
        """Set the origin of a subflow first seen in an event, by its socket (None: it is gone already)."""
        if found:
            subflow.origin = origin_of(found)
            subflow.backup = found.backup
            subflow.ifindex = found.ifindex
            self.learn_remote(session, found, now)
        elif (subflow.remote, subflow.remote_port) in reachable(session):
            subflow.origin = Origin.POLICY  # a BPF program's, which the peer refused at once

    def learn_local_id(self, session: Session, end: SubflowAddress) -> None:
        """The kernel's id of a local address within a session, where it differs from the namespace's.

        It gives one of its own to an address that the peer joins before we announce it.
        """
        local, local_id = end.local, end.local_id
        if not local_id or local == session.local:
            return
        known = session.local_ids.get(local) if session.local_ids else None
        if local_id != (known or self._address_ids.get(local)):
            session.local_ids = {**(session.local_ids or {}), local: local_id}

    def learn_remote(self, session: Session, record: SubflowRecord, now: Moment) -> None:
        """A subflow opened by this end implies that the peer announced its remote address before the service
        started.
        """
        known = any(remote.address_id == record.remote_id for remote in session.remotes)
        if known or not record.remote_id or not record.opened_here or record.is_initial:
            return
        usual = session.role is Role.CLIENT and record.remote_port == session.remote_port
        port = 0 if usual else record.remote_port
        self.remote_announced(session, RemoteAddress(record.remote, port, record.remote_id), now)

    def subflow_closed(self, session: Session, event: MptcpEvent, now: Moment) -> Ending | None:
        """MPTCP_EVENT_SUB_CLOSED. None for one that we closed ourselves and forgot already."""
        subflow = session.subflows.find_end_or_opening(event)
        if subflow is None:
            return None
        refused = was_refused(subflow, event, now.monotonic)
        reason = closing_reason(subflow, event, refused=refused)
        self.remove_subflow(session, subflow, reason, now)
        session.history.add(now, HistoryEvent.SUBFLOW_CLOSED, f"{subflow.pair}: {reason}")
        silent = subflow.stuck or event.error in SILENT
        kind = failure_kind(subflow, event, refused)
        note_loss(session, subflow, reason, now, kind=kind, silent=silent)
        return Ending(subflow, reason, kind)

    def remove_subflow(self, session: Session, subflow: Subflow, reason: str, now: Moment) -> None:
        """Take a subflow out of the table."""
        session.subflows.remove(subflow)
        self._on_closed(session, subflow, reason, now)

    def priority_changed(self, session: Session, event: MptcpEvent, now: Moment) -> None:
        """MPTCP_EVENT_SUB_PRIORITY: the peer's MP_PRIO."""
        subflow = session.subflows.find_end(event)
        if subflow:
            subflow.peer_backup = event.backup
            what = HistoryEvent.PEER_SET_BACKUP if event.backup else HistoryEvent.PEER_CLEARED_BACKUP
            session.history.add(now, what, subflow.pair)


def origin_of(record: SubflowRecord) -> Origin:
    """Who opened a subflow, by its socket."""
    if record.is_initial:
        return Origin.INITIAL
    # What this end opened before the service watched is taken for a path manager's: it may go.
    return Origin.POLICY if record.opened_here else Origin.PEER
