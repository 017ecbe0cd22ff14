# SPDX-License-Identifier: Apache-2.0
"""Reads the kernel's events from the event loop, and survives an overrun of their socket.

The kernel delivers nothing more to an overrun socket until it is empty, and libuv takes a descriptor
with EPOLLERR out of its poll set for good. So the socket is emptied at once, what was in it is dealt
with in slices, and only then the descriptor is watched again and the sessions compared with the kernel.

Where BPF programs open the subflows, nobody waits for the service, and each wake-up of it takes the
processor from a program's worker. So it reads late: the first event after quiet takes the descriptor out of
the loop, and the socket is emptied every ``LATE_S``, until nothing was in it. Of a session that has ended by
then, little needs to be done.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from pm.clock import Clock, EventLoop, Moment, Timer, moment
from pm.kernel import EventsLost, RawEvent
from pm.kernel_protocols import Commands
from pm.log_budget import get_limited_logger
from pm.sessions.timers import BATCH, Slice

DRAINED = 4096  # per turn of the loop: some milliseconds
BACKLOG_MAX = 1 << 17  # more than the socket's buffer holds
LATE_S = 0.25
CATCH_UP_S = 1.0  # somebody waits for an answer, or for the end of the service
PROMPT_S = 1.0  # after a command of the operator, who waits for what comes of it

log = get_limited_logger()


class EventReader:
    def __init__(
        self,
        *,
        commands: Commands,
        apply: Callable[[RawEvent, Moment], None],
        on_lost: Callable[[], None],
        in_no_hurry: Callable[[], bool],
        counters: Counter[str],
        scheduler: EventLoop,
        clock: Clock,
    ) -> None:
        """``on_lost`` is called when events were lost and those before them have been applied.

        ``in_no_hurry`` is asked at each wake-up whether to read late.
        """
        self._commands = commands
        self._apply = apply
        self._on_lost = on_lost
        self._in_no_hurry = in_no_hurry
        self._counters = counters
        self._scheduler = scheduler
        self._clock = clock
        self._running = False
        self._soon: Timer | None = None
        """Where it is None, the descriptor is watched."""
        self._resting = False
        """``_soon`` is ``LATE_S`` away, not the next turn of the loop."""
        self._found = self._lost = False
        self._prompt_until = float("-inf")
        self._caught_up = asyncio.Event()

    def start(self) -> None:
        self._running = True
        self._watch()

    def stop(self) -> None:
        """Apply what has happened by now, for ``CATCH_UP_S`` at most, and read no more."""
        was_running, self._running = self._running, False
        self._leave()
        until = self._clock.monotonic() + CATCH_UP_S
        empty = not was_running
        while not empty and self._clock.monotonic() < until:
            try:
                empty = self._commands.drain(DRAINED)
            except EventsLost:
                self._note_loss()
            while self._commands.backlog() and self._clock.monotonic() < until:
                self._apply_some(min(BATCH, self._commands.backlog()))

    def be_prompt(self) -> None:
        """Read what happens in the next ``PROMPT_S`` at once."""
        self._prompt_until = self._clock.monotonic() + PROMPT_S
        if self._resting:
            self._leave()
            self._watch()

    async def catch_up(self) -> None:
        """Until what had happened when it was called has been applied, but ``CATCH_UP_S`` at most."""
        if not self._running or not self._in_no_hurry():
            return
        if self._soon is None or self._resting:
            self._leave()
            self._soon = self._scheduler.call_soon(self._drain)
        self._caught_up.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_S):
                await self._caught_up.wait()

    def read(self) -> None:
        """What the kernel has sent by now, as much as one turn takes; later, where nobody hurries."""
        if self._is_late():
            self._leave()
            self._rest()
            return
        try:
            self._apply_some(BATCH)
        except EventsLost:
            self._note_loss()
            self._leave()
            self._drain()

    def _is_late(self) -> bool:
        return self._in_no_hurry() and self._clock.monotonic() >= self._prompt_until

    def _apply_some(self, limit: int) -> None:
        """Events that wait, at most ``limit``, and as many as one turn takes. Raises EventsLost."""
        turn, now = Slice(self._clock), moment(self._clock)
        for message in self._commands.read_events(limit):
            self._apply(message, now)
            if message.over:  # nothing was asked or done for it
                continue
            at = self._clock.monotonic()
            if turn.is_over(at):
                return
            now = Moment(now.time + at - now.monotonic, at)

    def _watch(self) -> None:
        self._scheduler.add_reader(self._commands.fileno(), self.read)

    def _leave(self) -> None:
        """Neither watch nor wait."""
        self._scheduler.remove_reader(self._commands.fileno())
        if self._soon:
            self._soon.cancel()
        self._soon, self._resting = None, False

    def _rest(self) -> None:
        self._resting = True
        self._soon = self._scheduler.call_later(LATE_S, self._drain)

    def _note_loss(self) -> None:
        self._counters["events_lost"] += 1
        log.warning("events_lost", remedy="none needed: the sessions are compared with the kernel now")
        self._lost = True

    def _drain(self) -> None:
        """Empty the socket. Somebody who causes events faster than we read does not keep us here."""
        self._resting = False
        try:
            empty = self._commands.drain(DRAINED)
        except EventsLost:
            empty = False
            if not self._lost:
                self._note_loss()
        if empty or self._commands.backlog() >= BACKLOG_MAX:
            self._found = self._commands.backlog() > 0
            self._apply_backlog()
        else:
            self._soon = self._scheduler.call_soon(self._drain)

    def _apply_backlog(self) -> None:
        self._apply_some(min(BATCH, self._commands.backlog()))
        if self._commands.backlog():
            self._soon = self._scheduler.call_soon(self._apply_backlog)
            return
        self._soon = None
        self._caught_up.set()
        lost, self._lost = self._lost, False
        if self._found and not lost and self._is_late():
            self._rest()
        else:
            self._watch()
        if lost:
            self._on_lost()
