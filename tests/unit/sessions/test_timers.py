# SPDX-License-Identifier: GPL-2.0-only
"""One timer for all sessions, however often they ask."""

from __future__ import annotations

from pm.sessions.timers import RESOLUTION_S, TimerQueue
from tests.unit.sessions.world import Clock, Loop


def test_each_token_at_its_times() -> None:
    """Not before, and soon after."""
    clock, due = Clock(), list[tuple[float, int]]()
    loop = Loop(clock)
    timers = TimerQueue(lambda token: due.append((clock.now, token)), clock=clock, scheduler=loop)
    for when, token in ((3.0, 1), (1.0, 2), (2.0, 1), (2.004, 3)):
        timers.add(1000.0 + when, token)
    loop.run_until(1010.0)
    assert [token for _, token in due] == [2, 1, 3, 1]
    assert all(
        0 <= at - 1000.0 - when <= RESOLUTION_S for (at, _), when in zip(due, (1, 2, 2.004, 3), strict=True)
    )


def test_what_is_asked_again_costs_nothing() -> None:
    """An hour to wait, and a peer that has the session planned a thousand times a second."""
    clock, due = Clock(), list[int]()
    loop = Loop(clock)
    timers = TimerQueue(due.append, clock=clock, scheduler=loop)
    for i in range(10_000):
        timers.add(clock.now + 3600.0 + i * 1e-9, 7)
    assert len(timers._heap) <= 2
    loop.run_until(clock.now + 3601.0)
    assert set(due) == {7}
    assert len(due) <= 2
