# SPDX-License-Identifier: Apache-2.0
"""One timer for all sessions, however often they ask; and no turn of the event loop that never ends."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

from pm.clock import Moment
from pm.kernel import RawEvent
from pm.linux.netlink.mptcp_pm_codec import decode_event
from pm.sessions.event_reader import EventReader
from pm.sessions.timers import RESOLUTION_S, SLICE_S, TimerQueue
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


def test_what_takes_long_is_done_in_slices() -> None:
    """Nobody else waits for all of it, and nothing is forgotten."""
    clock, due = Clock(), list[int]()
    loop = Loop(clock)

    def work(token: int) -> None:
        due.append(token)
        clock.now += SLICE_S / 2

    timers = TimerQueue(work, clock=clock, scheduler=loop)
    for token in range(10):
        timers.add(clock.now, token)
    clock.now += 1
    timers._fire()
    assert due == [0, 1]
    loop.run_until(clock.now + 1)
    assert due == list(range(10))


def test_events_that_take_long_are_dealt_with_in_slices() -> None:
    """A peer decides what they cost and how many there are."""
    clock, applied = Clock(), list[RawEvent]()

    waiting = deque(RawEvent(number, b"", decode_event) for number in range(10))

    class Commands:
        def read_events(self, limit: int) -> Iterator[RawEvent]:
            while waiting:
                yield waiting.popleft()

    def apply(event: RawEvent, now: Moment) -> None:
        applied.append(event)
        clock.now += SLICE_S / 2

    reader = EventReader(
        commands=Commands(),  # type: ignore[arg-type]
        apply=apply,
        on_lost=lambda: None,
        in_no_hurry=lambda: False,
        counters=Counter(),
        scheduler=Loop(clock),
        clock=clock,
    )
    for done in (2, 4):
        reader.read()
        assert len(applied) == done
    assert [event.type for event in (*applied, *waiting)] == list(range(10))
