# SPDX-License-Identifier: Apache-2.0
"""The subflows of each policy over each interface, counted when /metrics asks.

At most once in ``FRESH_S``, and a few sessions at a time with a turn of the event loop in between.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from pm.api.control import ControlPlane
from pm.errors import KernelRefused
from pm.model import SubflowState
from pm.sessions.ledger import ACCOUNTS_MAX, OTHERS, Account
from pm.sessions.session import Session

FRESH_S = 1.0
ASKED_MAX = 1000  # sessions; with more, the figures are those of the last comparison, 45 s old at most
ASKED_AT_ONCE = 8
COUNTED_AT_ONCE = 250


class Rtt(NamedTuple):
    """Of the established subflows over an interface, in seconds."""

    median: float
    longest: float


@dataclass(slots=True)
class InterfaceCounts:
    """``subflows`` has (account, state); ``stuck`` are among the established ones."""

    sessions: Counter[Account] = field(default_factory=Counter)
    subflows: Counter[tuple[Account, str]] = field(default_factory=Counter)
    stuck: Counter[Account] = field(default_factory=Counter)
    rtts: dict[str, Rtt] = field(default_factory=dict)


class InterfaceCensus:
    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._counting = asyncio.Lock()
        self._counts = InterfaceCounts()
        self._expires = 0.0

    async def count(self) -> InterfaceCounts:
        """At most ``FRESH_S`` old."""
        async with self._counting:
            if time.monotonic() >= self._expires:
                sessions = list(self._control.sessions().values())
                if len(sessions) <= ASKED_MAX:
                    await self._ask(sessions)
                self._counts = await self._count(sessions)
                self._expires = time.monotonic() + FRESH_S
        return self._counts

    async def _ask(self, sessions: Sequence[Session]) -> None:
        """The answers go to the ledger, and to the subflows."""
        for at in range(0, len(sessions), ASKED_AT_ONCE):
            with suppress(KernelRefused):  # the figures are those of before
                self._control.stats(sessions[at : at + ASKED_AT_ONCE])
            await asyncio.sleep(0)

    async def _count(self, sessions: Sequence[Session]) -> InterfaceCounts:
        counts, known = InterfaceCounts(), set[Account]()
        rtts: dict[str, list[int]] = {}
        for at in range(0, len(sessions), COUNTED_AT_ONCE):
            for session in sessions[at : at + COUNTED_AT_ONCE]:
                there = set()
                policy = session.policy.name if session.policy else None
                for subflow in session.subflows:
                    account = Account(policy, self._control.interface_of(subflow))
                    if account not in known and len(known) >= ACCOUNTS_MAX:
                        account = Account(OTHERS, OTHERS)
                    known.add(account)
                    counts.subflows[account, subflow.state.value] += 1
                    if subflow.state is SubflowState.ESTABLISHED:
                        there.add(account)
                        counts.stuck[account] += subflow.stuck
                        if rtt_us := subflow.figures.rtt_us:
                            rtts.setdefault(account.interface, []).append(rtt_us)
                counts.sessions.update(there)
            await asyncio.sleep(0)
        counts.rtts = {name: Rtt(median(found) / 1e6, max(found) / 1e6) for name, found in rtts.items()}
        return counts
