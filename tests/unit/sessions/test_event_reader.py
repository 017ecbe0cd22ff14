# SPDX-License-Identifier: Apache-2.0
"""When events are read: at once, or late where programs open the subflows; no polling while idle."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterator

import pytest

from pm.clock import Moment, Timer
from pm.kernel import EventsLost, RawEvent
from pm.linux.netlink.mptcp_pm_codec import decode_event
from pm.sessions.event_reader import CATCH_UP_S, LATE_S, PROMPT_S, EventReader
from tests.unit.sessions.world import Clock, Loop


class Commands:
    """A socket with numbers as events; ``overrun``: the kernel dropped some."""

    def __init__(self) -> None:
        self.socket: deque[RawEvent] = deque()
        self.taken: deque[RawEvent] = deque()
        self.overrun = False

    def fileno(self) -> int:
        return 0

    def backlog(self) -> int:
        return len(self.taken)

    def send(self, number: int) -> None:
        self.socket.append(RawEvent(number, b"", decode_event))

    def read_events(self, limit: int) -> Iterator[RawEvent]:
        for _ in range(limit):
            self._fail()
            if not self.taken and not self.socket:
                return
            yield (self.taken or self.socket).popleft()

    def drain(self, limit: int) -> bool:
        self._fail()
        for _ in range(min(limit, len(self.socket))):
            self.taken.append(self.socket.popleft())
        return not self.socket

    def _fail(self) -> None:
        if self.overrun:
            self.overrun = False
            raise EventsLost


class WatchingLoop(Loop):
    watching = False

    def add_reader(self, *_: object) -> None:
        self.watching = True

    def remove_reader(self, *_: object) -> None:
        self.watching = False

    def pending(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]


class Reading:
    """A reader, what it has applied with the times, and how often it was told of a loss."""

    def __init__(self, *, late: bool = True) -> None:
        self.clock = Clock()
        self.loop = WatchingLoop(self.clock)
        self.kernel = Commands()
        self.applied: list[int] = []
        self.times: list[float] = []
        self.compared = 0
        self.late = late
        self.reader = EventReader(
            commands=self.kernel,  # type: ignore[arg-type]
            apply=self._apply,
            on_lost=self._on_lost,
            in_no_hurry=lambda: self.late,
            counters=Counter(),
            scheduler=self.loop,
            clock=self.clock,
        )
        self.reader.start()

    def _apply(self, event: RawEvent, now: Moment) -> None:
        self.applied.append(event.type)
        self.times.append(now.monotonic)

    def _on_lost(self) -> None:
        self.compared += 1

    def wake(self) -> None:
        """What the event loop does where the socket is readable and watched."""
        if self.loop.watching and self.kernel.socket:
            self.reader.read()

    def wait(self, seconds: float) -> None:
        self.loop.run_until(self.clock.now + seconds)


def test_in_a_hurry_events_are_read_when_they_come() -> None:
    """On the netlink datapath."""
    reading = Reading(late=False)
    reading.kernel.send(1)
    reading.wake()
    assert reading.applied == [1]
    assert reading.loop.watching


def test_late_reading_ends_when_nothing_comes() -> None:
    """The first event takes the descriptor out of the loop; a drain that finds nothing puts it back."""
    reading = Reading()
    reading.kernel.send(1)
    reading.wake()
    assert not reading.loop.watching
    reading.kernel.send(2)
    reading.wait(LATE_S / 2)
    assert reading.applied == []
    reading.wait(LATE_S / 2)
    assert reading.applied == [1, 2]
    assert not reading.loop.watching
    reading.wait(LATE_S)
    assert reading.loop.watching
    assert reading.loop.pending() == []


def test_after_a_command_of_the_operator_nobody_waits() -> None:
    """What comes of a command is read at once, for a while."""
    reading = Reading()
    reading.kernel.send(1)
    reading.wake()
    reading.reader.be_prompt()
    reading.wake()
    assert reading.applied == [1]
    reading.wait(PROMPT_S)
    reading.kernel.send(2)
    reading.wake()
    assert reading.applied == [1]


def test_a_change_of_the_policies_counts_from_the_next_drain() -> None:
    """A policy without a program makes the service hurry."""
    reading = Reading()
    reading.kernel.send(1)
    reading.wake()
    reading.late = False
    reading.wait(LATE_S)
    assert reading.applied == [1]
    assert reading.loop.watching


@pytest.mark.parametrize("resting", [False, True])
async def test_who_asks_gets_what_has_happened(resting: bool) -> None:
    """Before an answer, the socket is emptied, whether the reader watches it or waits."""
    reading = Reading()
    if resting:
        reading.kernel.send(0)
        reading.wake()
    for number in range(1, 201):
        reading.kernel.send(number)
    asked = asyncio.create_task(reading.reader.catch_up())
    await asyncio.sleep(0)
    reading.wait(0)
    await asked
    assert reading.applied[-1] == 200
    reading.wait(2 * LATE_S)
    assert reading.loop.watching


async def test_after_the_end_nobody_waits() -> None:
    reading = Reading()
    reading.reader.stop()
    await reading.reader.catch_up()
    assert not reading.loop.watching


@pytest.mark.parametrize("late", [False, True])
def test_an_overrun_is_recovered(late: bool) -> None:
    """What is left is applied, then the sessions are compared once, and events are followed again."""
    reading = Reading(late=late)
    for number in range(3):
        reading.kernel.send(number)
    reading.kernel.overrun = True
    reading.wake()
    reading.wait(LATE_S)
    assert reading.applied == [0, 1, 2]
    assert reading.compared == 1
    assert reading.loop.watching
    reading.kernel.send(3)
    reading.wake()
    reading.wait(LATE_S)
    assert reading.applied == [0, 1, 2, 3]
    assert reading.compared == 1


@pytest.mark.parametrize("late", [True, False])
def test_at_the_end_what_waits_is_applied(late: bool) -> None:
    """What the kernel has told by then: in the socket, and read but not applied."""
    reading = Reading(late=late)
    for number in range(10_000):
        reading.kernel.send(number)
    reading.wake()
    reading.reader.stop()
    assert reading.applied == list(range(10_000))
    assert (reading.loop.watching, reading.loop.pending()) == (False, [])


def test_the_end_does_not_wait_for_ever() -> None:
    """Somebody may cause events faster than they are applied."""
    reading = Reading()

    def apply(event: RawEvent, now: Moment) -> None:
        reading.clock.now += 0.001
        reading.kernel.send(event.type)

    reading.reader._apply = apply
    reading.kernel.send(1)
    reading.reader.stop()
    assert reading.clock.now - 1000 < CATCH_UP_S + 0.1


def test_events_that_were_lost_at_the_end() -> None:
    """What is left of them is applied; nobody compares any more."""
    reading = Reading()
    reading.kernel.send(1)
    reading.kernel.overrun = True
    reading.reader.stop()
    assert (reading.applied, reading.compared) == ([1], 0)
