# SPDX-License-Identifier: Apache-2.0
"""The session table follows events and agrees with dumps."""

from __future__ import annotations

import errno
from functools import partial

import pytest

from pm.kernel import EventType, SubflowRecord
from pm.model import Origin, Pair, RemoteAddress, Role, SubflowState
from pm.sessions.actions import Open
from pm.sessions.backoff import PROVEN_S, RETRY_CAP_S
from pm.sessions.dump_merge import find_known, merge_session
from pm.sessions.failures import forget_what_works
from pm.sessions.history import HistoryEvent
from pm.sessions.session import Session, SessionState
from pm.sessions.session_table import REMOTES_MAX, SessionTable
from tests.unit.builders import REMOTE, REMOTE_PORT, at, event, record

A, B = "10.0.1.1", "10.0.2.1"
PAIR_B = Pair(B, REMOTE, REMOTE_PORT)


def established() -> tuple[SessionTable, Session]:
    table = SessionTable({})
    table.create(event(EventType.CREATED), at(1.0))
    return table, table.establish(event(EventType.ESTABLISHED), at(2.0))


def test_events_make_a_session() -> None:
    """CREATED then ESTABLISHED: one session with its initial subflow."""
    _, session = established()
    assert (session.state, session.created, session.established) == (
        SessionState.ESTABLISHED,
        at(1.0),
        at(2.0),
    )
    assert [s.origin for s in session.subflows] == [Origin.INITIAL]
    assert [e.event for e in session.history] == ["created", "established"]


def test_established_alone_makes_a_session() -> None:
    """A lost CREATED does not lose the session."""
    table = SessionTable({})
    assert table.establish(event(EventType.ESTABLISHED, server_side=True), at(1.0)).role is Role.SERVER


def test_join_completes_the_subflow_that_was_opening() -> None:
    """SUB_ESTABLISHED of a pair we asked for names its source port; any other is the peer's."""
    table, session = established()
    table.subflow_opening(session, Open(PAIR_B, 2, False, "fullmesh"), Origin.POLICY, at(3.0))
    ours = table.subflow_established(
        session, event(EventType.SUB_ESTABLISHED, local=B, local_port=41000, local_id=2), at(4.0)
    )
    theirs = table.subflow_established(
        session, event(EventType.SUB_ESTABLISHED, remote_port=6000, local_port=80), at(4.0)
    )
    assert (ours.origin, ours.local_port, ours.state) == (Origin.POLICY, 41000, SubflowState.ESTABLISHED)
    assert theirs.origin is Origin.PEER
    assert len(session.subflows) == 3


def test_failed_join_is_remembered_with_its_reason() -> None:
    """SUB_CLOSED of one still opening: backoff doubles, is capped, and keeps the kernel's word."""
    table, session = established()
    delays = []
    for _ in range(12):
        table.subflow_opening(session, Open(PAIR_B, 2, False, ""), Origin.POLICY, at(3.0))
        table.subflow_closed(
            session, event(EventType.SUB_CLOSED, local=B, error=errno.ECONNREFUSED), at(100.0)
        )
        assert session.retries
        delays.append(session.retries[PAIR_B].not_before - 100.0)
    assert delays[:4] == [1.0, 2.0, 4.0, 8.0]
    assert delays[-1] == RETRY_CAP_S
    assert session.retries
    assert "ECONNREFUSED" in session.retries[PAIR_B].reason
    table.subflow_opening(session, Open(PAIR_B, 2, False, ""), Origin.POLICY, at(103.0))
    table.subflow_established(session, event(EventType.SUB_ESTABLISHED, local=B, local_port=1), at(105.0))
    assert session.retries  # a SYN/ACK proves nothing
    forget_what_works(session, 105.0 + PROVEN_S - 0.1)
    assert session.retries
    forget_what_works(session, 105.0 + PROVEN_S)
    assert session.retries is None


def test_close_of_an_unknown_subflow_says_nothing() -> None:
    """The event of a subflow that we closed ourselves finds it forgotten."""
    table, session = established()
    assert table.subflow_closed(session, event(EventType.SUB_CLOSED, local_port=9), at(3.0)) is None
    assert len(session.subflows) == 1


def test_remote_addresses() -> None:
    """ADD_ADDR twice is one address; the same id with another address replaces it; RM_ADDR removes."""
    table, session = established()
    assert table.remote_announced(session, RemoteAddress("10.0.9.2", 0, 1), at(3.0))
    assert not table.remote_announced(session, RemoteAddress("10.0.9.2", 0, 1), at(3.0))
    assert table.remote_announced(session, RemoteAddress("10.0.9.3", 0, 1), at(3.0))
    assert session.remotes == (RemoteAddress("10.0.9.3", 0, 1),)
    assert table.remote_removed(session, 1, at(4.0))
    assert not table.remote_removed(session, 1, at(4.0))


def merge(table: SessionTable, *records: SubflowRecord, now: float = 5.0) -> tuple[Session, bool]:
    session, changed, _ = merge_session(table, records, 1, at(now))
    return session, changed


def test_merge_adopts_older_sessions() -> None:
    """A dump shows a session with a join of ours: role, ids and origins come from its flags."""
    session, changed = merge(
        SessionTable({}),
        record(is_initial=False, local=B, local_port=41000, local_id=2),
        record(),
        record(is_initial=False, opened_here=False, remote_port=6000, local_port=7000),
    )
    assert changed
    assert (session.role, session.state, session.local, session.cgroup_id) == (
        Role.CLIENT,
        SessionState.ESTABLISHED,
        A,
        77,
    )
    assert [s.origin for s in session.subflows] == [Origin.POLICY, Origin.INITIAL, Origin.PEER]
    assert session.local_ids == {B: 2}
    assert [e.event for e in session.history][:2] == ["found", "established"]


def test_merge_learns_what_the_peer_announced() -> None:
    """An older session's joins tell the addresses that were announced, with a port where it is another."""
    join = partial(record, is_initial=False, local_port=41000)
    session, _ = merge(
        SessionTable({}),
        record(),
        join(remote="10.0.2.2", remote_id=1),
        join(remote="10.0.2.2", remote_id=1, local=B, local_id=2),
        join(remote="10.0.3.2", remote_id=3, remote_port=5055),
        join(remote="10.0.4.2", remote_id=4, opened_here=False),
    )
    assert session.remotes == (RemoteAddress("10.0.2.2", 0, 1), RemoteAddress("10.0.3.2", 5055, 3))


def test_merge_repairs_after_lost_events() -> None:
    """What the kernel shows completes what was opening and adds what was missed."""
    table, session = established()
    table.subflow_opening(session, Open(PAIR_B, 2, False, ""), Origin.POLICY, at(3.0))
    join = record(is_initial=False, local=B, local_port=41000, local_id=2)
    assert merge(table, record(), join) == (session, True)
    assert [(s.local, s.local_port, s.state) for s in session.subflows] == [
        (A, 40000, SubflowState.ESTABLISHED),
        (B, 41000, SubflowState.ESTABLISHED),
    ]
    assert merge(table, record(), join) == (session, False)


@pytest.mark.parametrize(
    ("found", "same"),
    [
        (record(), True),
        (record(local_port=1), False),
        (record(backup=True), False),
        (record(peer_backup=True), False),
        (record(local_id=3), False),
        (record(is_established=False), False),
    ],
)
def test_what_agrees_is_known(found: SubflowRecord, same: bool) -> None:
    """Whatever differs is looked at again; what is there is marked as seen either way."""
    _, session = established()
    assert (find_known(session, found, 7) is not None) == same
    assert session.subflows[0].seen == (0 if found.local_port == 1 else 7)


def test_a_session_not_yet_established_is_not_known() -> None:
    """Its ESTABLISHED was lost: the comparison has to find that out."""
    table = SessionTable({})
    session = table.create(event(EventType.CREATED), at(1.0))
    assert find_known(session, record(), 1) is None
    assert find_known(session, record(is_fully_established=False), 1)


def test_history_is_bounded() -> None:
    """The last 32 entries are kept."""
    table, session = established()
    for i in range(40):
        table.remote_announced(session, RemoteAddress("10.0.9.2", i, 1), at(float(i)))
    assert len(session.history) == 32
    assert "39" in str(session.history[-1].detail)


def test_refused_addresses_hold_no_place() -> None:
    """Those of a peer to which subflows may not go are kept apart, and judged again when the rules change."""
    refused = {"127.0.0.1"}
    table = SessionTable({}, lambda session, remote: "no" if remote.ip in refused else "")
    session = table.establish(event(EventType.ESTABLISHED), at(2.0))
    bad, good = RemoteAddress("127.0.0.1", 0, 1), RemoteAddress("10.0.9.2", 0, 2)
    assert not table.remote_announced(session, bad, at(3.0))
    assert table.remote_announced(session, good, at(3.0))
    assert (session.remotes, session.refused_remotes) == ((good,), (bad,))
    assert not table.remote_announced(session, bad, at(3.0))
    assert [e.event for e in session.history].count(HistoryEvent.REMOTE_ADDRESS_REFUSED) == 1
    refused.clear()
    table.judge_remotes(session)
    assert (session.remotes, session.refused_remotes) == ((good, bad), ())
    refused.add("10.0.9.2")
    table.judge_remotes(session)
    assert (session.remotes, session.refused_remotes) == ((bad,), (good,))
    assert not table.remote_removed(session, 2, at(4.0))
    assert session.refused_remotes == ()


def test_a_refused_address_takes_the_place_of_the_one_with_its_id() -> None:
    """The plan hears of it: the address before has no subflows any more."""
    table = SessionTable({}, lambda session, remote: "no" if remote.ip == "127.0.0.1" else "")
    session = table.establish(event(EventType.ESTABLISHED), at(2.0))
    assert table.remote_announced(session, RemoteAddress("10.0.9.2", 0, 1), at(3.0))
    assert table.remote_announced(session, RemoteAddress("127.0.0.1", 0, 1), at(3.0))
    assert session.remotes == ()


def test_announced_addresses_are_bounded() -> None:
    """One that finds no place gets it when another goes."""
    table, session = established()
    for i in range(1, 200):
        table.remote_announced(session, RemoteAddress(f"10.9.0.{i}", 0, i), at(3.0))
    assert len(session.remotes) == REMOTES_MAX
    table.remote_removed(session, 1, at(4.0))
    assert len(session.remotes) == REMOTES_MAX
    assert RemoteAddress(f"10.9.0.{REMOTES_MAX + 1}", 0, REMOTES_MAX + 1) in session.remotes
