# SPDX-License-Identifier: Apache-2.0
"""Makes the session table agree with what sock_diag shows. No I/O and no decisions."""

from __future__ import annotations

from collections.abc import Sequence

from pm.clock import Moment
from pm.kernel import SubflowRecord
from pm.model import Origin, Role, Subflow, SubflowState
from pm.sessions.failures import note_loss
from pm.sessions.history import HistoryEvent
from pm.sessions.session import Session, SessionState
from pm.sessions.session_table import SessionTable, origin_of

GONE = "gone without an event"


def find_known(session: Session, record: SubflowRecord, number: int) -> Subflow | None:
    """The subflow of a record where the table has it just so: it is marked as seen by this comparison."""
    subflow = session.subflows.find_end(record)
    if subflow is None:
        return None
    subflow.seen = number
    same = (
        (subflow.state is SubflowState.ESTABLISHED) == record.is_established
        and subflow.backup == record.backup
        and subflow.peer_backup == record.peer_backup
        and subflow.local_id == record.local_id
        and subflow.remote_id == record.remote_id
        and subflow.ifindex == record.ifindex
        and not (record.is_initial and session.mark != record.mark)
        and not (session.state is SessionState.CREATED and _takes_commands(record))
        and not _is_ours_after_all(subflow, record)
    )
    return subflow if same else None


def merge_session(
    table: SessionTable, records: Sequence[SubflowRecord], number: int, now: Moment
) -> tuple[Session, bool, list[Subflow]]:
    """Take what the kernel shows of one session into the table.

    Returns the session, whether it has changed, and the subflows that the table did not have.

    ``records`` are subflows of one token that the kernel has at this moment: some or all of them.
    """
    session = table.get(records[0].token)
    changed = session is None
    new = []
    if session is None:
        session = _adopt(table, records, now)
    session.cgroup_id = session.cgroup_id or records[0].cgroup_id
    if session.state is SessionState.CREATED and any(map(_takes_commands, records)):
        table.mark_established(session, now)
        changed = True
    for record in records:
        subflow = session.subflows.find_end_or_opening(record)
        if subflow is None:
            subflow = _add_subflow(session, record, now)
            new.append(subflow)
            table.learn_remote(session, record, now)
            changed = True
        if _is_ours_after_all(subflow, record):
            subflow.origin = origin_of(record)
            table.learn_remote(session, record, now)
            changed = True
        if record.is_established and subflow.state is SubflowState.OPENING:
            subflow.state = SubflowState.ESTABLISHED
            subflow.since = now.monotonic
            changed = True
        changed = changed or subflow.backup != record.backup
        session.subflows.learn_port(subflow, record.local_port)
        subflow.local_id, subflow.remote_id = record.local_id, record.remote_id
        subflow.socket_family = record.socket_family
        subflow.backup, subflow.peer_backup = record.backup, record.peer_backup
        subflow.ifindex = record.ifindex
        if record.is_initial:
            table.socket_known(session, record.ifindex, record.mark)
        subflow.seen = number
        table.learn_local_id(session, record)
    return session, changed, new


def remove_gone(table: SessionTable, session: Session, subflow: Subflow, now: Moment) -> None:
    """A subflow that ended without an event, or whose event was lost."""
    table.remove_subflow(session, subflow, GONE, now)
    session.history.add(now, HistoryEvent.SUBFLOW_GONE, subflow.pair)
    note_loss(session, subflow, GONE, now, silent=True)


def _is_ours_after_all(subflow: Subflow, record: SubflowRecord) -> bool:
    """Whether a subflow was taken for the peer's: its event came, and the kernel could not be asked then."""
    return subflow.origin is Origin.PEER and record.opened_here


def _takes_commands(record: SubflowRecord) -> bool:
    """Whether its session is established: nobody joins before."""
    return record.is_fully_established if record.is_initial else record.is_established


def _adopt(table: SessionTable, records: Sequence[SubflowRecord], now: Moment) -> Session:
    """A session older than the service, or whose events were lost, from its subflows."""
    first = next((r for r in records if r.is_initial), records[0])
    session = table.add(
        first,
        role=Role.CLIENT if first.opened_here else Role.SERVER,
        socket_family=first.socket_family,
        now=now,
    )
    session.history.add(now, HistoryEvent.FOUND)
    return session


def _add_subflow(session: Session, record: SubflowRecord, now: Moment) -> Subflow:
    subflow = Subflow(
        record.local,
        record.local_port,
        record.remote,
        record.remote_port,
        origin_of(record),
        SubflowState.OPENING,
        backup=record.backup,
        since=now.monotonic,
    )
    session.subflows.append(subflow)
    session.history.add(now, HistoryEvent.SUBFLOW_FOUND, subflow.pair)
    return subflow


def may_deny_joins(session: Session) -> bool:
    """Whether the server may refuse joins to its initial address, as far as the subflows tell.

    sock_diag does not show the C flag (RFC 8684, section 3.1); a server that sets it announces another
    address instead. A join to the initial address proves that it did not.
    """
    ours = [s for s in session.subflows if s.origin is Origin.POLICY]
    return (
        session.role is Role.CLIENT
        and any(s.remote_id for s in ours)
        and not any(s.remote == session.remote for s in ours)
    )
