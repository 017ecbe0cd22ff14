# SPDX-License-Identifier: Apache-2.0
"""A subflow is stuck when two looks, a second apart, see data outstanding and no byte acknowledged."""

from __future__ import annotations

import pytest

from pm.sessions.liveness import is_suspect, look, note_rtt
from tests.unit.builders import record, subflow

DEAD = record(unacked=10, backoff=2, bytes_acked=500)


def test_two_looks_decide() -> None:
    """One is wrong now and then: a path with 15 % loss shows a backoff of 2 for a moment."""
    s = subflow("10.0.2.1")
    assert not look(s, DEAD, 10.0)
    assert is_suspect(s)
    assert not look(s, DEAD, 10.9)
    assert look(s, DEAD, 11.0)
    assert s.stuck
    assert not s.working
    assert not is_suspect(s)
    assert not look(s, DEAD, 12.0)  # no news


@pytest.mark.parametrize(
    "alive",
    [
        record(unacked=0, backoff=5, bytes_acked=500),  # idle: the last timeout is old
        record(unacked=10, backoff=1, bytes_acked=500),
        record(unacked=10, backoff=3, bytes_acked=501),  # a byte was acknowledged in between
    ],
)
def test_what_is_alive_is_not_stuck(alive: object) -> None:
    """No data outstanding, no timeouts, or an acknowledgement: a suspicion ends, and so does being stuck."""
    s = subflow("10.0.2.1")
    look(s, DEAD, 10.0)
    assert not look(s, alive, 11.5)  # type: ignore[arg-type]
    assert not s.stuck
    s.stuck, s.suspect_since, s.suspect_acked = True, 10.0, 500
    assert look(s, alive, 12.0)  # type: ignore[arg-type]
    assert s.working


@pytest.mark.parametrize(
    ("acked", "received", "carried"), [(1, 0, False), (1, 9, False), (9, 0, False), (2, 1, True)]
)
def test_data_both_ways_is_noticed(acked: int, received: int, carried: bool) -> None:
    """The SYN counts as one byte acknowledged."""
    s = subflow("10.0.2.1")
    look(s, record(bytes_acked=acked, bytes_received=received), 1.0)
    assert s.carried == carried


def test_round_trip_times_are_noted_in_steps() -> None:
    """The first one, then one that differs by more than a quarter; 0 means that none was measured."""
    s = subflow("10.0.2.1")
    assert not note_rtt(s, record(rtt_us=0))
    assert s.rtt_us is None
    assert note_rtt(s, record(rtt_us=1000))
    assert [note_rtt(s, record(rtt_us=rtt)) for rtt in (1000, 750, 1250, 0)] == [False] * 4
    assert note_rtt(s, record(rtt_us=749))
    assert s.rtt_us == 749
