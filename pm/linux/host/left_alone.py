# SPDX-License-Identifier: Apache-2.0
"""A sidecar in a network namespace that everything else has left.

If the container that owned the namespace is gone, its interfaces are too. An application that starts again
gets a new namespace, which this process cannot enter: only an engine that starts it anew helps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pm.errors import PmError
from pm.linux.host.remedies import where_it_runs
from pm.log import get_logger
from pm.notation import format_duration
from pm.upkeep import Change

THING = "the network namespace"
FOUND = "has no interface but lo left"

log = get_logger()


class NamespaceLeft(PmError):
    """Nothing but ``lo`` is left in the network namespace (exit status 4)."""

    exit_status = 4

    def __init__(self, waited_s: float) -> None:
        super().__init__(f"{THING} {FOUND}, and that since {format_duration(waited_s)}", remedy())


def remedy() -> str:
    return where_it_runs(
        host="start the service again in the application's new namespace",
        container="start this container again, after the one whose network it shares: it has a new namespace "
        "(`docker compose up -d`)",
    )


class LeftAlone:
    """Says at once that the namespace was left, and ends the service if it stays so."""

    def __init__(self, *, exit_after_s: float | None, had_others: bool) -> None:
        """``exit_after_s`` None: the service is not ready then, and goes on.

        ``had_others``: when this process began there were interfaces besides ``lo``.
        """
        self._exit_after_s = exit_after_s
        self._had_others = had_others
        self._alone = False
        self._changed = asyncio.Event()

    def interfaces(self, *, others: bool) -> None:
        """Whether there are interfaces besides ``lo``. A namespace that never had any was not left."""
        self._had_others = self._had_others or others
        alone = self._had_others and not others
        if alone != self._alone:
            self._alone = alone
            self._changed.set()

    async def look(self) -> dict[str, Change]:
        """A change while the namespace is left (``pm.upkeep.Kept``)."""

        async def restore() -> None:
            raise PmError("nothing can be done from within", remedy())

        return {THING: Change(FOUND, restore)} if self._alone else {}

    async def run(self, look: Callable[[], Awaitable[None]]) -> None:
        """Forever; ``look`` is that of ``pm.upkeep.Upkeep``. Raises NamespaceLeft."""
        while True:
            await self._change()
            await look()
            if self._alone:
                log.error("namespace_left", exit_after_s=self._exit_after_s, remedy=remedy())
                await self._wait_for_others()
                await look()

    async def _wait_for_others(self) -> None:
        try:
            async with asyncio.timeout(self._exit_after_s):
                while self._alone:
                    await self._change()
        except TimeoutError:
            raise NamespaceLeft(self._exit_after_s or 0) from None
        log.info("interfaces_back")

    async def _change(self) -> None:
        await self._changed.wait()
        self._changed.clear()
