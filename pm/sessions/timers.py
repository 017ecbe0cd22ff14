# SPDX-License-Identifier: Apache-2.0
"""When to look at which session again: one timer for all of them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

from pm.clock import Clock, Scheduler, Timer

RESOLUTION_S = 0.01
BATCH = 64  # per turn of the loop, so that nobody else waits for all of them
SLICE_S = 0.005


class Slice:
    """Work in one turn of the event loop: over after so many things, or so much time where they take long."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._done = 0
        self._ends = clock.monotonic() + SLICE_S

    def is_over(self, now: float | None = None) -> bool:
        """Asked after each thing that was done; ``now`` is the monotonic time, if it is known."""
        self._done += 1
        return self._done >= BATCH or (self._clock.monotonic() if now is None else now) >= self._ends


class TimerQueue:
    """Calls ``due(token)`` at or soon after the time asked for. Forgotten sessions cost nothing more."""

    def __init__(self, due: Callable[[int], None], *, clock: Clock, scheduler: Scheduler) -> None:
        self._due = due
        self._clock = clock
        self._scheduler = scheduler
        self._heap: list[tuple[float, int]] = []
        self._queued: set[tuple[float, int]] = set()
        self._timer: Timer | None = None

    def add(self, when: float, token: int) -> None:
        """``when`` is on the monotonic clock; it is rounded up, so that what is asked again costs nothing."""
        # Never earlier, not by the rounding of a float either: it would be asked again and again.
        entry = (max(when, math.ceil(when / RESOLUTION_S) * RESOLUTION_S), token)
        if entry in self._queued:
            return
        self._queued.add(entry)
        heapq.heappush(self._heap, entry)
        if self._heap[0] == entry:
            self._schedule()

    def cancel(self) -> None:
        self._heap.clear()
        self._queued.clear()
        self._schedule()

    def _schedule(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._scheduler.call_at(self._heap[0][0], self._fire) if self._heap else None

    def _fire(self) -> None:
        now, turn = self._clock.monotonic(), Slice(self._clock)
        done: set[int] = set()
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            self._queued.discard(entry)
            if entry[1] not in done:
                done.add(entry[1])
                self._due(entry[1])
                if turn.is_over():
                    break
        self._schedule()
