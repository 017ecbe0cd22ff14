# SPDX-License-Identifier: GPL-2.0-only
"""Makes the session table agree with a dump of sock_diag. No I/O and no decisions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pm.kernel import SubflowRecord
from pm.model import Pair, Role, Subflow, SubflowState
from pm.sessions.history import HistoryEvent
from pm.sessions.session import Session, SessionState
from pm.sessions.session_table import SessionTable, find_subflow, origin_of


class Merged(NamedTuple):
    """What ``merge_dump`` found: changed sessions, and those and subflows a dump did not show."""

    changed: list[Session]
    sessions_missing: list[Session]
    subflows_missing: list[tuple[Session, Subflow]]


def merge_dump(table: SessionTable, found: Iterable[SubflowRecord], now: float) -> Merged:
    """Make the table agree with a dump: at the service's start and after lost events.

    A dump of a busy host can miss a socket, so what it does not show is returned, not removed:
    the caller asks the kernel about each of these before it calls ``close`` or ``remove_subflow``.
    """
    groups: dict[int, list[SubflowRecord]] = {}
    for record in found:
        groups.setdefault(record.token, []).append(record)
    merged = Merged([], [], [])
    for token, records in groups.items():
        session = table.get(token)
        if session is None:
            merged.changed.append(_adopt(table, records, now))
        elif _update(table, session, records, now, merged):
            merged.changed.append(session)
    merged.sessions_missing.extend(s for s in table if s.token not in groups)
    return merged


def _adopt(table: SessionTable, records: list[SubflowRecord], now: float) -> Session:
    """A session older than the service, from its subflows."""
    first = next((r for r in records if r.is_initial), records[0])
    session = table.add(
        first,
        role=Role.CLIENT if first.opened_here else Role.SERVER,
        socket_family=first.socket_family,
        now=now,
    )
    session.cgroup_id = first.cgroup_id
    session.history.add(now, HistoryEvent.FOUND)
    session.local_ids = {r.local: r.local_id for r in records if r.local_id}
    _update(table, session, records, now, Merged([], [], []))
    return session


def _update(
    table: SessionTable, session: Session, records: list[SubflowRecord], now: float, merged: Merged
) -> bool:
    changed = False
    session.cgroup_id = session.cgroup_id or records[0].cgroup_id
    if session.state is SessionState.CREATED and any(
        r.is_fully_established if r.is_initial else r.is_established for r in records
    ):
        table.mark_established(session, now)
        changed = True
    unmatched = list(session.subflows)
    for record in records:
        subflow = find_subflow(session, record.local, record.local_port, record.remote, record.remote_port)
        if subflow is None and record.is_closing:
            continue  # closed on command, and forgotten
        subflow = subflow or _opening(unmatched, record)
        if subflow is None:
            subflow = _add_subflow(session, record, now)
            table.learn_remote(session, record, now)
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


def _opening(subflows: Iterable[Subflow], record: SubflowRecord) -> Subflow | None:
    """One that this end opens on the record's pair, without a source port yet."""
    pair = Pair(record.local, record.remote, record.remote_port)
    return next((s for s in subflows if s.state is SubflowState.OPENING and s.pair == pair), None)


def _add_subflow(session: Session, record: SubflowRecord, now: float) -> Subflow:
    subflow = Subflow(
        record.local,
        record.local_port,
        record.remote,
        record.remote_port,
        origin_of(record),
        SubflowState.OPENING,
        backup=record.backup,
    )
    session.subflows.append(subflow)
    session.history.add(now, HistoryEvent.SUBFLOW_FOUND, subflow.pair)
    return subflow
