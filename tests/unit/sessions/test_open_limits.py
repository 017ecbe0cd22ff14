# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter

import pytest

from pm.model import Pair
from pm.policies.model import Limits
from pm.policies.rates import Rate
from pm.sessions.actions import Close, Open
from pm.sessions.open_limits import OpenLimits
from pm.sessions.session import Session
from tests.unit.builders import REMOTE, policy, session, subflow

A = "10.0.1.1"
FULLMESH = policy("fullmesh", {"max_subflows": 8})
OPEN = Open(Pair(A, REMOTE, 1), 1, False, "fullmesh")


def admitted(limits: OpenLimits, of: Session, wanted: int, now: float) -> tuple[int, float | None]:
    actions, look_at = limits.admit(of, FULLMESH, [OPEN] * wanted, now)
    return len(actions), look_at


def test_a_bucket_fills_again() -> None:
    rate, full_at = Rate(10, 20), 0.0
    assert rate.room(full_at, 100.0) == 20
    full_at = rate.take(full_at, 100.0, 20)
    assert rate.room(full_at, 100.0) == 0
    assert rate.next_at(full_at) == pytest.approx(100.1)
    assert [rate.room(full_at, 100.0 + s) for s in (0.1, 1.0, 2.0, 50.0)] == [1, 10, 20, 20]


def test_a_session_opens_so_many_at_once_and_then_so_many_per_second() -> None:
    """A peer that names address after address causes ten SYNs per second, however fast it is."""
    limits, of = OpenLimits(Limits(), Counter()), session()
    assert admitted(limits, of, 8, 100.0) == (8, None)
    opened = 0
    for tick in range(10_000):  # ten seconds
        opened += admitted(limits, of, 8, 100.0 + tick / 1000)[0]
    assert 99 <= opened <= 103


def test_what_a_path_manager_may_open_goes_at_once() -> None:
    """Where that is more than the rate."""
    limits, of = OpenLimits(Limits(opens_per_session_per_second=2), Counter()), session()
    assert admitted(limits, of, 7, 100.0) == (7, None)


def test_a_namespace_opens_so_many_per_second() -> None:
    """In all sessions together; those that wait look again one after the other, not all at once."""
    counters: Counter[str] = Counter()
    limits = OpenLimits(Limits(opens_per_second=200), counters)
    many = [session(number=i, token=i) for i in range(1000)]
    now_or_later = [admitted(limits, s, 1, 100.0) for s in many]
    assert sum(count for count, _ in now_or_later) == 200
    assert counters["opens_delayed"] == 800
    waits = sorted(look_at for _, look_at in now_or_later if look_at)
    assert len(set(waits)) == 800
    assert waits[0] >= 100.0
    assert waits[-1] <= 104.1
    by_time = sorted((look_at, s) for s, (_, look_at) in zip(many, now_or_later, strict=True) if look_at)
    assert all(admitted(limits, s, 1, when + 0.01)[0] == 1 for when, s in by_time)


def test_events_do_not_bring_a_waiting_session_forward_nor_back() -> None:
    """Others do not wait longer since the peer of one makes it ask again and again."""
    limits = OpenLimits(Limits(opens_per_second=1), Counter())
    first, second, third = (session(number=i) for i in (1, 2, 3))
    assert admitted(limits, first, 1, 100.0)[0] == 1
    _, place = admitted(limits, second, 1, 100.0)
    for _ in range(100):
        assert admitted(limits, second, 1, 100.0) == (0, place)
    _, behind = admitted(limits, third, 1, 100.0)
    assert place
    assert behind
    assert behind - place == pytest.approx(1.0)


def test_other_actions_pass() -> None:
    limits, of = OpenLimits(Limits(opens_per_session_per_second=1), Counter()), session()
    close = Close(subflow(A), "not wanted")
    actions, look_at = limits.admit(of, FULLMESH, [OPEN] * 10 + [close], 100.0)
    assert actions == [OPEN] * 8 + [close]
    assert look_at
    assert limits.admit(of, FULLMESH, [OPEN, close], 100.0) == ([close], look_at)
    assert limits.admit(of, FULLMESH, [close], 100.0) == ([close], None)
