# SPDX-License-Identifier: Apache-2.0
"""Reads the kernel's events from the event loop, and survives an overrun of their socket.

The kernel delivers nothing more to an overrun socket until it is empty, and libuv takes a descriptor
with EPOLLERR out of its poll set for good. So the socket is emptied at once, what was in it is dealt
with in slices, and only then the descriptor is watched again and the sessions compared with the kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from pm.clock import Clock, EventLoop, Timer
from pm.kernel import EventsLost, RawEvent
from pm.kernel_protocols import Commands
from pm.log_budget import get_limited_logger
from pm.sessions.timers import BATCH, Slice

DRAINED = 4096  # per turn of the loop: some milliseconds
BACKLOG_MAX = 1 << 17  # more than the socket's buffer holds

log = get_limited_logger()


class EventReader:
    def __init__(
        self,
        *,
        commands: Commands,
        apply: Callable[[RawEvent], None],
        on_lost: Callable[[], None],
        counters: Counter[str],
        scheduler: EventLoop,
        clock: Clock,
    ) -> None:
        """``on_lost`` is called when events were lost and those before them have been applied."""
        self._commands = commands
        self._apply = apply
        self._on_lost = on_lost
        self._counters = counters
        self._scheduler = scheduler
        self._clock = clock
        self._soon: Timer | None = None

    def start(self) -> None:
        self._scheduler.add_reader(self._commands.fileno(), self.read)

    def stop(self) -> None:
        self._scheduler.remove_reader(self._commands.fileno())
        if self._soon:
            self._soon.cancel()

    def read(self) -> None:
        """What the kernel has sent by now, as much as one turn takes."""
        turn = Slice(self._clock)
        try:
            for message in self._commands.read_events(BATCH):
                self._apply(message)
                if turn.is_over():
                    return
        except EventsLost:
            self._counters["events_lost"] += 1
            log.warning("events_lost", remedy="none needed: the sessions are compared with the kernel now")
            self.stop()
            self._drain()

    def _drain(self) -> None:
        """Empty the socket. Somebody who causes events faster than we read does not keep us here."""
        if self._commands.drain(DRAINED) or self._commands.backlog() >= BACKLOG_MAX:
            self._apply_backlog()
        else:
            self._soon = self._scheduler.call_soon(self._drain)

    def _apply_backlog(self) -> None:
        turn = Slice(self._clock)
        for message in self._commands.read_events(min(BATCH, self._commands.backlog())):
            self._apply(message)
            if turn.is_over():
                break
        if self._commands.backlog():
            self._soon = self._scheduler.call_soon(self._apply_backlog)
            return
        self._soon = None
        self.start()
        self._on_lost()
