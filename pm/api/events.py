# SPDX-License-Identifier: Apache-2.0
"""Events for any number of readers, none of which can make the service wait or grow.

``Broadcast.publish`` never blocks: a reader that is too slow loses its oldest events and is told
how many.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol

from pm.sessions.session import Session

QUEUE_LENGTH = 1024
REPLAY_LENGTH = 256
READ_AT_ONCE = 64
"""All readers wait for the same last events: only those that one has taken can be its own."""


class ServiceEvent(NamedTuple):
    """Something that happened: what a reader of ``GET /v1/events`` gets.

    ``id`` is ``RUN-NUMBER``: a text of this run of the service, and a number that ascends by one. ``time`` is
    seconds since the epoch, ``kind`` a value of ``pm.model.EventKind``, ``action`` a snake_case word
    (``created``, ``closed``, ``reloaded``, ...). ``token`` names the session; it is None if the event
    concerns no session. ``detail`` is sent as JSON unchanged.
    """

    id: str
    number: int
    time: float
    kind: str
    action: str
    token: int | None
    detail: Mapping[str, Any]


class Batch(NamedTuple):
    """Events in order; ``lost`` is the number that were dropped before the first of them, None if unknown."""

    lost: int | None
    events: Sequence[ServiceEvent]


class EventReader(Protocol):
    async def read(self) -> Batch:
        """Wait for events and return them, at most ``READ_AT_ONCE``. Cancel it to stop."""


class _Reader:
    def __init__(self, backlog: Sequence[ServiceEvent], lost: int | None) -> None:
        self._queue: deque[ServiceEvent] = deque(backlog, maxlen=QUEUE_LENGTH)
        self._lost = lost
        self._filled = asyncio.Event()
        if backlog or lost != 0:
            self._filled.set()

    def __len__(self) -> int:
        """How many events wait to be read."""
        return len(self._queue)

    def put(self, event: ServiceEvent) -> None:
        if len(self._queue) == QUEUE_LENGTH and self._lost is not None:
            self._lost += 1
        self._queue.append(event)
        self._filled.set()

    async def read(self) -> Batch:
        await self._filled.wait()
        events = [self._queue.popleft() for _ in range(min(len(self._queue), READ_AT_ONCE))]
        batch = Batch(self._lost, events)
        self._lost = 0
        if not self._queue:
            self._filled.clear()
        return batch


class Broadcast:
    """One publisher, any number of readers, and the last events for readers that come back."""

    def __init__(self) -> None:
        self.readers: set[_Reader] = set()
        """The readers that follow at the moment."""
        self._recent: deque[ServiceEvent] = deque(maxlen=REPLAY_LENGTH)
        self._run = secrets.token_hex(4)
        self._number = 0

    def publish(
        self, time: float, kind: str, action: str, token: int | None, detail: Mapping[str, Any]
    ) -> None:
        """Give all readers an event. The caller must not change ``detail`` afterwards."""
        self._number += 1
        event = ServiceEvent(f"{self._run}-{self._number}", self._number, time, kind, action, token, detail)
        self._recent.append(event)
        for reader in self.readers:
            reader.put(event)

    def tell(self, kind: str, action: str, **detail: Any) -> None:
        """Publish an event of this moment that concerns no session."""
        self.publish(time.time(), kind, action, None, detail)

    def tell_of_session(
        self, time: float, kind: str, action: str, session: Session, detail: Mapping[str, Any]
    ) -> None:
        """Publish what happened to a session; ``time`` is seconds since the epoch."""
        self.publish(time, kind, action, session.token, detail)

    @asynccontextmanager
    async def subscribe(self, after: str = "") -> AsyncIterator[EventReader]:
        """Read events from now on, or those after the one with the id ``after``, as far as they are held.

        Where the id is not of this run, nobody knows what was missed before it: all that are held come.
        """
        backlog: list[ServiceEvent] = []
        lost: int | None = 0
        if after:
            number = self._number_of(after)
            backlog = [event for event in self._recent if event.number > (number or 0)]
            lost = None if number is None else self._number - number - len(backlog)
        reader = _Reader(backlog, lost)
        self.readers.add(reader)
        try:
            yield reader
        finally:
            self.readers.discard(reader)

    def _number_of(self, id: str) -> int | None:
        """None where it is not of this run."""
        found = re.fullmatch(rf"{self._run}-([0-9]{{1,18}})", id)
        number = int(found[1]) if found else self._number + 1
        return number if number <= self._number else None
