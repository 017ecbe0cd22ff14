# SPDX-License-Identifier: GPL-2.0-only
"""Events to any number of readers, none of which can make the service wait or grow.

``Broadcast.publish`` never blocks: a reader that is too slow loses its oldest events and is told
how many.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol

from pm.sessions.session import Session

QUEUE_LENGTH = 1024
REPLAY_LENGTH = 256


class Event(NamedTuple):
    """``number`` ascends by one; ``time`` is seconds since the epoch; ``detail`` is JSON as it stands.

    ``type`` is ``session``, ``subflow``, ``address``, ``policy`` or ``config``; ``action`` a snake_case
    word (``created``, ``closed``, ``added``, ``reloaded``, ...); ``token`` names the session, or is
    None for what concerns none.
    """

    number: int
    time: float
    type: str
    action: str
    token: int | None
    detail: Mapping[str, Any]


class Batch(NamedTuple):
    """``lost`` events were dropped before the first of ``events``."""

    lost: int
    events: Sequence[Event]


class EventReader(Protocol):
    async def read(self) -> Batch:
        """Wait for events. Raises nothing of its own; cancel it to stop."""


class _Reader:
    def __init__(self, backlog: Sequence[Event], lost: int) -> None:
        self._queue: deque[Event] = deque(backlog, maxlen=QUEUE_LENGTH)
        self._lost = lost
        self._filled = asyncio.Event()
        if backlog or lost:
            self._filled.set()

    def put(self, event: Event) -> None:
        if len(self._queue) == QUEUE_LENGTH:
            self._lost += 1
        self._queue.append(event)
        self._filled.set()

    async def read(self) -> Batch:
        await self._filled.wait()
        self._filled.clear()
        batch = Batch(self._lost, tuple(self._queue))
        self._lost = 0
        self._queue.clear()
        return batch


class Broadcast:
    """One publisher, any number of readers, and the last events for readers that come back."""

    def __init__(self) -> None:
        self._readers: set[_Reader] = set()
        self._recent: deque[Event] = deque(maxlen=REPLAY_LENGTH)
        self._number = 0

    def publish(
        self, time: float, type: str, action: str, token: int | None, detail: Mapping[str, Any]
    ) -> None:
        """Give all readers an event; ``detail`` must not change any more."""
        self._number += 1
        event = Event(self._number, time, type, action, token, detail)
        self._recent.append(event)
        for reader in self._readers:
            reader.put(event)

    def tell(self, type: str, action: str, **detail: Any) -> None:
        """Publish what concerns no session, now."""
        self.publish(time.time(), type, action, None, detail)

    def tell_of_session(
        self, time: float, type: str, action: str, session: Session, detail: Mapping[str, Any]
    ) -> None:
        """Publish what happened to a session; ``time`` is seconds since the epoch."""
        self.publish(time, type, action, session.token, detail)

    @asynccontextmanager
    async def subscribe(self, after: int | None = None) -> AsyncIterator[EventReader]:
        """Events from now on, or from number ``after`` + 1 as far as they are still held.

        A number from the future is that of an earlier run of the service: it is ignored.
        """
        backlog: list[Event] = []
        lost = 0
        if after is not None and after <= self._number:
            backlog = [event for event in self._recent if event.number > after]
            lost = self._number - after - len(backlog)
        reader = _Reader(backlog, lost)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
