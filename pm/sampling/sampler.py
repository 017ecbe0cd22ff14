# SPDX-License-Identifier: Apache-2.0
"""Takes a sample of all sessions each second while somebody looks, and forgets them when nobody does.

Beyond ``SESSIONS_MAX`` it follows that many, chosen at random. Bytes of all sessions are from the ledger,
which has those of closed subflows too; those of a choice are added up here.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple, TypeVar

from pm.clock import Clock
from pm.errors import KernelRefused
from pm.model import Figures, Subflow, SubflowState
from pm.sampling.track import HISTORY, UNKNOWN, Track
from pm.sessions.ledger import ACCOUNTS_MAX, Account, Ledger
from pm.sessions.session import Session
from pm.sessions.traffic import Traffic

INTERVAL_S = 1.0
LOOKED_AT_FOR_S = 60.0
SESSIONS_MAX = 1000
TRACKS_MAX = 4096  # of subflows; 2 KiB each in three minutes
AT_ONCE = 16  # sessions whose subflows are looked up between two turns of the event loop
SETTLED_AFTER = 3  # samples in which the final figures of a closed subflow come

# Columns of a track of a policy's subflows over an interface, and the first three of a subflow's.
SENT, RECEIVED, RTT, RETRANSMITS, SUBFLOWS = range(5)

Move = tuple[int, int, int]
Key = TypeVar("Key", Account, str | None)


@dataclass(slots=True)
class Followed:
    """A subflow; ``seen`` is the number of the last sample in which it was established."""

    session: Session
    account: Account
    last: Figures
    seen: int
    track: Track | None


class Window(NamedTuple):
    """The samples that there are: numbers ``first`` to ``last``, and when each was taken (both clocks)."""

    first: int
    last: int
    times: Sequence[float]
    end: float


class Sampler:
    """``stats`` asks the kernel for the figures of sessions, and tells the ledger."""

    def __init__(
        self,
        *,
        sessions: Callable[[], Mapping[int, Session]],
        stats: Callable[[Sequence[Session]], object],
        ledger: Ledger,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._sessions = sessions
        self._stats = stats
        self._ledger = ledger
        self._clock = clock
        self._chance = chance
        self._until = 0.0
        self._refreshed_at = -INTERVAL_S
        self._wanted = asyncio.Event()
        self._forget()

    def _forget(self) -> None:
        self._number = 0
        self._times: deque[float] = deque(maxlen=HISTORY)
        self._end = 0.0
        self._choice: set[Session] = set()
        self._before: dict[Account, Move] | None = None
        self._merged = self._ledger.merged
        self.followed: dict[Subflow, Followed] = {}
        self.accounts: dict[Account, Track] = {}
        self.policies: dict[str | None, Track] = {}
        self._active: dict[object, int] = {}
        self.sampled, self.there = 0, 0

    def look(self) -> None:
        """Somebody looks: samples are taken for the next minute."""
        self._until = self._clock.monotonic() + LOOKED_AT_FOR_S
        self._wanted.set()

    @property
    def looked_at(self) -> bool:
        return self._wanted.is_set()

    def rates(self) -> dict[Session, float]:
        """Bytes per second both ways in the last sample, of the sessions whose subflows have tracks."""
        found: dict[Session, float] = {}
        for followed in self.followed.values():
            if followed.track:
                both = (followed.track.get(column, self._number - 1) for column in (SENT, RECEIVED))
                known = sum(rate for rate in both if not math.isnan(rate))
                found[followed.session] = found.get(followed.session, 0.0) + known
        return found

    def window(self) -> Window | None:
        """None before the first sample."""
        if not self._times:
            return None
        last = self._times[-1]
        times = [time - last for time in self._times]
        return Window(self._number - len(times), self._number - 1, times, self._end)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wanted.wait()
            due = self._clock.monotonic()
            while due < self._until:
                await self.take_sample()
                due = max(due + INTERVAL_S, self._clock.monotonic())
                await asyncio.sleep(due - self._clock.monotonic())
            self._wanted.clear()
            self._forget()

    async def refresh(self) -> None:
        """Tell the ledger what all sessions have carried until now, or ``SESSIONS_MAX`` of them.

        However many ask, the kernel is asked once in ``INTERVAL_S``.
        """
        now = self._clock.monotonic()
        if now - self._refreshed_at < INTERVAL_S:
            return
        self._refreshed_at = now
        await self._ask(list(self._sessions().values())[:SESSIONS_MAX])

    async def take_sample(self) -> None:
        chosen = self._choose(self._sessions())
        await self._ask(chosen)
        self._finish(chosen)

    def _choose(self, sessions: Mapping[int, Session]) -> list[Session]:
        self.there = len(sessions)
        if len(sessions) <= SESSIONS_MAX:
            self._choice = set()
            return list(sessions.values())
        self._choice &= set(sessions.values())
        others = [session for session in sessions.values() if session not in self._choice]
        self._choice.update(self._chance.sample(others, SESSIONS_MAX - len(self._choice)))
        return list(self._choice)

    async def _ask(self, sessions: Sequence[Session]) -> None:
        for at in range(0, len(sessions), AT_ONCE):
            with suppress(KernelRefused):  # the figures are those of before
                self._stats(sessions[at : at + AT_ONCE])
            await asyncio.sleep(0)

    def _finish(self, chosen: Sequence[Session]) -> None:
        """All at once, so that what is read between two samples fits together."""
        now = self._clock.monotonic()
        elapsed = now - self._times[-1] if self._times else 0.0
        rtts: dict[Account, list[int]] = {}
        moved: dict[Account, Traffic] = {}
        self._follow(chosen, now - elapsed, rtts)
        for subflow, followed in list(self.followed.items()):
            age = self._number - followed.seen
            if age < SETTLED_AFTER:
                moved.setdefault(followed.account, Traffic()).add(followed.last, subflow.figures)
                if followed.track:
                    _put(followed.track, self._number, followed.last, subflow, elapsed, alive=not age)
                followed.last = subflow.figures
            elif age > HISTORY or followed.track is None or len(self.followed) > TRACKS_MAX // 2:
                del self.followed[subflow]
        if len(chosen) == self.there:
            self._account(self._moved_by_all(), rtts, elapsed)
        else:
            self._before = None
            self._account(moved, rtts, elapsed)
        self._count(chosen)
        self.sampled = len(chosen)
        self._times.append(now)
        self._end = self._clock.time()
        self._number += 1

    def _follow(self, chosen: Iterable[Session], before: float, rtts: dict[Account, list[int]]) -> None:
        for session in chosen:
            policy = session.policy.name if session.policy else None
            for subflow in session.subflows:
                if subflow.state is not SubflowState.ESTABLISHED:
                    continue
                account = Account(policy, self._ledger.interface_of(subflow))
                followed = self.followed.get(subflow)
                if followed is None:
                    followed = self.followed[subflow] = Followed(
                        session,
                        account,
                        # What one that is new has carried, it has carried since the last sample.
                        Figures() if self._times and subflow.since >= before else subflow.figures,
                        self._number,
                        Track(3) if len(self.followed) < TRACKS_MAX else None,
                    )
                followed.seen = self._number
                followed.account = account  # a reload may have given the session another policy
                rtts.setdefault(account, []).append(subflow.figures.rtt_us)

    def _moved_by_all(self) -> dict[Account, Traffic]:
        """Since the last sample, as the ledger has it; nothing where it is not known what it had then."""
        now = {
            account: (traffic.bytes_acked, traffic.bytes_received, traffic.retransmits)
            for account, traffic in self._ledger.accounts().items()
        }
        before, self._before = self._before, now
        merged, self._merged = self._merged, self._ledger.merged
        if before is None or merged != self._merged:
            return {}
        return {
            account: Traffic(*(a - b for a, b in zip(moved, before.get(account, (0, 0, 0)), strict=True)))
            for account, moved in now.items()
            if moved != before.get(account)
        }

    def _account(
        self, moved: Mapping[Account, Traffic], rtts: Mapping[Account, Sequence[int]], elapsed: float
    ) -> None:
        for account in {*self.accounts, *moved, *rtts}:
            of_account, found = moved.get(account, Traffic()), rtts.get(account, ())
            track = self._track(self.accounts, account, 5, active=account in moved or account in rtts)
            if track is None:
                continue
            track.put(
                self._number,
                (
                    *_rates(of_account.bytes_acked, of_account.bytes_received, elapsed),
                    median(known) / 1e6 if (known := [rtt for rtt in found if rtt]) else UNKNOWN,
                    of_account.retransmits / elapsed if elapsed else UNKNOWN,
                    len(found),
                ),
            )

    def _count(self, chosen: Iterable[Session]) -> None:
        counts = Counter(session.policy.name if session.policy else None for session in chosen)
        for policy in {*self.policies, *counts}:
            track = self._track(self.policies, policy, 1, active=policy in counts)
            if track is not None:
                track.put(self._number, (counts[policy],))

    def _track(self, tracks: dict[Key, Track], key: Key, width: int, *, active: bool) -> Track | None:
        """None where there are too many, and for one that had nothing for as long as is shown."""
        if active and (key in tracks or len(tracks) < ACCOUNTS_MAX):
            self._active[key] = self._number
            return tracks.setdefault(key, Track(width))
        if key in tracks and self._number - self._active[key] > HISTORY:
            del tracks[key], self._active[key]
        return tracks.get(key)


def _rates(sent: int, received: int, elapsed: float) -> tuple[float, float]:
    return (sent / elapsed, received / elapsed) if elapsed else (UNKNOWN, UNKNOWN)


def _put(track: Track, number: int, last: Figures, subflow: Subflow, elapsed: float, *, alive: bool) -> None:
    now = subflow.figures
    sent, received = now.bytes_acked - last.bytes_acked, now.bytes_received - last.bytes_received
    rtt = now.rtt_us / 1e6 if alive and now.rtt_us else UNKNOWN
    if alive or sent or received:
        track.put(number, (*_rates(sent, received, elapsed), rtt))
