# SPDX-License-Identifier: Apache-2.0
"""What the service attached and set stays so: it looks every few seconds, and sets back what others changed.

Once: a thing that changes again soon belongs to another administrator. It is left alone then, and
``reasons`` says so until it is as wanted again, or the configuration is loaded again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from pm.errors import PmError
from pm.log import get_logger

INTERVAL_S = 3.0
QUIET_S = 600.0
"""A thing that was changed is set back only if it was not changed for so long before."""

log = get_logger()


class Verdict(StrEnum):
    RESTORE = "restore"
    LEAVE = "leave"


class Change(NamedTuple):
    """``found`` says what a thing is now. ``restore`` sets it back; it raises PmError where it cannot."""

    found: str
    restore: Callable[[], Awaitable[None]]


class Kept(Protocol):
    """Things of one kind that the service keeps as it made them."""

    async def look(self) -> Mapping[str, Change]:
        """What is not as it should be, by the thing's name."""


class Restraint:
    """Which changes are set back, and which are left to whoever made them. Pure."""

    def __init__(self) -> None:
        self._changed_at: dict[str, float] = {}
        self.left: set[str] = set()
        """Things that are left as they are."""

    def judge(self, changed: Collection[str], now_s: float) -> dict[str, Verdict]:
        """A verdict on each of ``changed``, all things that are not as they should be at this time.

        ``now_s`` is on the monotonic clock.
        """
        self._changed_at = {t: at for t, at in self._changed_at.items() if now_s - at < QUIET_S}
        again = {thing for thing in changed if thing in self._changed_at}
        self.left = (self.left | again) & set(changed)
        for thing in changed:
            if thing not in self.left or thing in again:
                self._changed_at[thing] = now_s
        return {thing: Verdict.LEAVE if thing in self.left else Verdict.RESTORE for thing in changed}

    def not_restored(self, thing: str) -> None:
        """It could not be set back: nobody has changed it twice. It is tried again at the next look."""
        del self._changed_at[thing]

    def forgive(self) -> None:
        """What is left is set back after all."""
        self._changed_at.clear()
        self.left.clear()


class Upkeep:
    """Looks at everything that is kept, and does what ``Restraint`` says."""

    def __init__(
        self, kept: Sequence[Kept], *, counters: Counter[str], monotonic: Callable[[], float]
    ) -> None:
        self._kept = kept
        self._counters = counters
        self._monotonic = monotonic
        self._restraint = Restraint()
        self._looking = asyncio.Lock()
        self.reasons: dict[str, str] = {}
        """Thing -> what it is now, and why it stays so. Empty where all is as wanted."""

    async def run(self) -> None:
        """Look forever."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.look()

    async def look(self) -> None:
        async with self._looking:
            changes: dict[str, Change] = {}
            for kept in self._kept:
                try:
                    changes |= await kept.look()
                except (OSError, PmError) as e:  # no descriptor left, say: the next look may succeed
                    log.warning("look_failed", what=type(kept).__name__, error=str(e))
            verdicts = self._restraint.judge(changes, self._monotonic())
            reasons = {}
            for thing, change in changes.items():
                if reason := await self._treat(thing, change, verdicts[thing]):
                    reasons[thing] = f"{thing} {change.found}; {reason}"
            for thing in self.reasons.keys() - changes.keys():
                log.info("as_wanted_again", what=thing)
            self.reasons = reasons

    async def start_over(self) -> None:
        """The configuration was loaded again: set back what was left."""
        async with self._looking:
            self._restraint.forgive()
        await self.look()

    async def _treat(self, thing: str, change: Change, verdict: Verdict) -> str | None:
        """Why a thing stays as it is; None where it was set back."""
        known = thing in self.reasons
        if not known:
            log.warning("changed_by_others", what=thing, found=change.found)
            self._counters["changes_noticed"] += 1
        if verdict is Verdict.LEAVE:
            if not known:
                log.error("left_as_it_is", what=thing, found=change.found, remedy="mptcp-pm reload")
            return "it changed again after it was set back: reload the configuration to set it back once more"
        try:
            await change.restore()
        except PmError as e:
            self._restraint.not_restored(thing)
            if not known:
                log.error("not_set_back", what=thing, error=str(e))
            return str(e)
        log.info("set_back", what=thing)
        self._counters["changes_set_back"] += 1
        return None
