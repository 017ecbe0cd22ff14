# SPDX-License-Identifier: Apache-2.0
"""The sampler without a kernel: sessions whose figures the tests set."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pm.errors import KernelRefused
from pm.interfaces import Interface, Interfaces
from pm.model import Figures, LocalAddress
from pm.sampling import sampler as module
from pm.sampling.sampler import RECEIVED, RTT, SENT, SESSIONS_MAX, SUBFLOWS, Sampler
from pm.sampling.track import HISTORY
from pm.sessions.ledger import Account, Ledger
from pm.sessions.session import Session
from tests.unit.api.plane import SYNC, make_session

INTERFACES = Interfaces()
ETH0, ETH1 = (Account("sync", INTERFACES.seen(n + 1, f"eth{n}")) for n in (0, 1))


class World:
    """Sessions, and what each ``stats`` finds that their subflows have carried since the last one."""

    def __init__(self) -> None:
        self.now, self.calls, self.refuse = 1000.0, 0, False
        self.table: dict[int, Session] = {}
        self.ledger = Ledger(INTERFACES)
        self.ledger.set_addresses(
            [LocalAddress(f"10.0.{n + 1}.1", 24, n + 1, f"eth{n}", True, False, "") for n in (0, 1)]
        )
        self.sampler = Sampler(
            sessions=lambda: self.table,
            stats=self.stats,
            ledger=self.ledger,
            clock=self,
            chance=random.Random(7),
        )

    def time(self) -> float:
        return self.now + 1e9

    def monotonic(self) -> float:
        return self.now

    def stats(self, sessions: Sequence[Session]) -> None:
        self.calls += 1
        if self.refuse:
            raise KernelRefused("looking up sockets", 12)
        for session in sessions:
            for subflow in session.subflows:
                before = subflow.figures
                after = Figures(before.bytes_acked + 100, before.bytes_received + 50, 0, 4000)
                self.ledger.note(session, subflow, after)

    def add(self, *numbers: int) -> None:
        for number in numbers:
            session = make_session(number)
            self.table[session.token] = session

    async def sample(self, seconds: float = 1.0) -> None:
        self.now += seconds
        await self.sampler.take_sample()

    def last(self, account: Account, column: int) -> float:
        window = self.sampler.window()
        assert window
        return self.sampler.accounts[account].get(column, window.last)


@pytest.fixture
def world() -> World:
    world = World()
    world.add(1, 2)
    return world


async def test_rates_are_of_the_time_between_two_samples(world: World) -> None:
    """Two sessions with a subflow on each interface; the second sample comes two seconds after the first."""
    await world.sample()
    assert world.last(ETH0, SENT) != world.last(ETH0, SENT)  # not known before two samples
    await world.sample(2.0)
    assert world.last(ETH0, SENT) == 100
    assert world.last(ETH1, RECEIVED) == 50
    assert world.last(ETH0, RTT) == pytest.approx(0.004)
    assert world.last(ETH0, SUBFLOWS) == 2
    window = world.sampler.window()
    assert window
    assert list(window.times) == [-2.0, 0.0]
    assert (world.sampler.sampled, world.sampler.there) == (2, 2)


async def test_what_a_closed_subflow_carried_last_counts(world: World) -> None:
    """Its final figures come after its end, and are of its interface and its session."""
    await world.sample()
    (session, *_) = world.table.values()
    subflow = session.subflows[1]
    session.subflows.remove(subflow)
    world.ledger.note(session, subflow, Figures(5000, 50, 0, 4000))
    await world.sample()
    assert world.last(ETH1, SENT) == 5000 - 100 + 100  # and the other session's
    followed = world.sampler.followed[subflow]
    assert followed.track
    assert followed.track.get(SENT, 1) == 4900


async def test_a_subflow_that_is_new_has_carried_all_since_the_last_sample(world: World) -> None:
    """Of one that was there before the first sample it is not known when it carried what it has."""
    await world.sample()
    world.add(3)
    (*_, session) = world.table.values()
    for subflow in session.subflows:
        subflow.since = world.now + 0.5
    await world.sample()
    track = world.sampler.followed[session.subflows[0]].track
    assert track
    assert track.get(SENT, 1) == 100
    assert world.last(ETH0, SENT) == 300


async def test_a_session_with_another_policy_counts_for_that(world: World) -> None:
    """A reload renames the policy: its series begin with the next sample."""
    await world.sample()
    renamed = replace(SYNC, name="renamed")
    for session in world.table.values():
        session.policy = renamed
    await world.sample()
    account = Account("renamed", ETH0.interface)
    assert world.last(account, SUBFLOWS) == 2
    assert world.last(account, SENT) == 200
    assert world.last(ETH0, SUBFLOWS) == 0


async def test_many_sessions_are_sampled_by_a_choice_that_stays(world: World) -> None:
    """1,000 at random; who is gone is replaced, and the others stay."""
    world.add(*range(3, 2501))
    await world.sample()
    first = {followed.session for followed in world.sampler.followed.values()}
    assert len(first) == SESSIONS_MAX == world.sampler.sampled
    assert world.sampler.there == 2500
    for session in list(first)[:10]:
        del world.table[session.token]
    await world.sample()
    assert world.last(ETH0, SENT) == pytest.approx(100 * (SESSIONS_MAX - 10))
    alive = {f.session for f in world.sampler.followed.values() if f.seen == 1}
    assert len(alive & first) == SESSIONS_MAX - 10
    assert len(alive) == SESSIONS_MAX
    assert list(first) != list(world.table.values())[:SESSIONS_MAX]


async def test_refused_questions_leave_a_sample_of_what_is_known(world: World) -> None:
    """The kernel does not answer for a while: nothing ends, and nothing is invented."""
    await world.sample()
    world.refuse = True
    await world.sample()
    assert world.last(ETH0, SENT) == 0
    world.refuse = False
    await world.sample()
    assert world.last(ETH0, SENT) == 200


async def test_nothing_is_sampled_unless_somebody_looks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look starts it, a minute without one ends it, and then everything is forgotten."""
    slept = asyncio.sleep

    async def sleep(seconds: float) -> None:
        world.now += max(0.0, seconds)
        await slept(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    task = asyncio.create_task(world.sampler.run())
    for _ in range(100):
        await slept(0)
    assert world.calls == 0
    world.sampler.look()
    await slept(0)
    while world.sampler.looked_at:
        await slept(0)
    assert world.calls == 60
    assert not world.sampler.followed
    assert not world.sampler.accounts
    assert world.sampler.window() is None
    for _ in range(100):
        await slept(0)
    assert world.calls == 60
    task.cancel()


async def test_memory_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Subflows that come and go for ever, on interfaces and in policies with new names."""
    monkeypatch.setattr(module, "TRACKS_MAX", 50)
    for number in range(3, 400):
        world.table.clear()
        world.add(number)
        (session,) = world.table.values()
        interface = Interface(f"veth{number}")
        for subflow in session.subflows:
            subflow.interface = interface
        await world.sample()
    assert len(world.sampler.followed) <= 50
    assert len(world.sampler.accounts) <= HISTORY + 5


async def test_rates_of_sessions(world: World) -> None:
    """Of all their subflows, both ways, in the last sample; none before the second."""
    await world.sample()
    assert set(world.sampler.rates().values()) == {0.0}
    await world.sample(2.0)
    assert world.sampler.rates() == dict.fromkeys(world.table.values(), 150.0)


async def test_many_who_refresh_ask_the_kernel_once(world: World) -> None:
    """Scrapes cost no more than one in a second, and nobody asks by itself."""
    world.add(1)
    assert world.calls == 0
    await asyncio.gather(*(world.sampler.refresh() for _ in range(10)))
    assert world.calls == 1
    world.now += 1.0
    await world.sampler.refresh()
    assert world.calls == 2
