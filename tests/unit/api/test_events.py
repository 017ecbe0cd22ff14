# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio

import pytest

from pm.api.events import QUEUE_LENGTH, READ_AT_ONCE, REPLAY_LENGTH, Batch, Broadcast, EventReader


def publish(broadcast: Broadcast, count: int) -> None:
    for _ in range(count):
        broadcast.publish(0.0, "session", "created", None, {})


async def read(reader: EventReader, count: int) -> Batch:
    """``count`` events, in as many batches as it takes."""
    first = await reader.read()
    events = [*first.events]
    while len(events) < count:
        batch = await reader.read()
        assert len(batch.events) <= READ_AT_ONCE
        events += batch.events
    return Batch(first.lost, events)


async def test_every_reader_gets_every_event_in_order() -> None:
    """Two readers see the same events, numbered without a gap."""
    broadcast = Broadcast()
    async with broadcast.subscribe() as one, broadcast.subscribe() as other:
        publish(broadcast, 3)
        for reader in (one, other):
            batch = await reader.read()
            assert (batch.lost, [e.number for e in batch.events]) == (0, [1, 2, 3])


async def test_slow_reader_loses_the_oldest_and_is_told() -> None:
    """The queue holds QUEUE_LENGTH events; what was dropped is counted once."""
    broadcast = Broadcast()
    async with broadcast.subscribe() as reader:
        publish(broadcast, QUEUE_LENGTH + 5)
        batch = await read(reader, QUEUE_LENGTH)
        assert (batch.lost, len(batch.events), batch.events[0].number) == (5, QUEUE_LENGTH, 6)
        publish(broadcast, 1)
        assert (await reader.read()).lost == 0


@pytest.mark.parametrize(
    ("published", "after", "lost", "replayed"),
    [
        (10, 7, 0, [8, 9, 10]),
        (10, 10, 0, []),
        (10, 99, 0, []),  # of an earlier run
        (REPLAY_LENGTH + 10, 4, 6, list(range(11, REPLAY_LENGTH + 11))),
    ],
)
async def test_reader_that_comes_back_continues(
    published: int, after: int, lost: int, replayed: list[int]
) -> None:
    """What is still held after the last event seen is sent first; what is not is counted as lost."""
    broadcast = Broadcast()
    publish(broadcast, published)
    async with broadcast.subscribe(after) as reader:
        publish(broadcast, 1)
        batch = await read(reader, len(replayed) + 1)
        assert batch.lost == lost
        assert [e.number for e in batch.events] == [*replayed, published + 1]


async def test_reader_that_left_costs_nothing() -> None:
    """After its context a reader receives nothing any more."""
    broadcast = Broadcast()
    async with broadcast.subscribe() as reader:
        pass
    publish(broadcast, 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await reader.read()
