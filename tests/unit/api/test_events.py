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
        (REPLAY_LENGTH + 10, 4, 6, list(range(11, REPLAY_LENGTH + 11))),
    ],
)
async def test_reader_that_comes_back_continues(
    published: int, after: int, lost: int, replayed: list[int]
) -> None:
    """What is still held after the last event seen is sent first; what is not is counted as lost."""
    broadcast, ids = Broadcast(), [""]
    async with broadcast.subscribe() as first:
        for _ in range(published):
            publish(broadcast, 1)
            ids += [event.id for event in (await first.read()).events]
    async with broadcast.subscribe(ids[after]) as reader:
        publish(broadcast, 1)
        batch = await read(reader, len(replayed) + 1)
        assert batch.lost == lost
        assert [e.number for e in batch.events] == [*replayed, published + 1]


async def test_reader_that_comes_back_after_a_restart() -> None:
    """Nobody knows how much it has missed: it is told so, and gets what this run holds."""
    former, broadcast = Broadcast(), Broadcast()
    publish(former, 10)
    publish(broadcast, 3)
    async with former.subscribe() as reader:
        publish(former, 1)
        (seen,) = (await reader.read()).events
    future = seen.id.replace(seen.id.split("-")[0], broadcast._run)
    for after in (seen.id, future, "7", "x", "٣", "-", "\udcff"):
        async with broadcast.subscribe(after) as reader:
            batch = await reader.read()
            assert (batch.lost, [e.number for e in batch.events]) == (None, [1, 2, 3])


async def test_a_restart_with_nothing_to_replay_is_told() -> None:
    """At once, not with the next event."""
    async with Broadcast().subscribe("0123abcd-7") as reader:
        assert await reader.read() == (None, [])


async def test_reader_that_left_costs_nothing() -> None:
    """After its context a reader receives nothing any more."""
    broadcast = Broadcast()
    async with broadcast.subscribe() as reader:
        pass
    publish(broadcast, 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await reader.read()
