# SPDX-License-Identifier: Apache-2.0
"""``addresses.source_routing``: keeps rules and routes equal to what the addresses and ``main`` ask for.

Level-triggered: what is there (by its protocol number) is compared with what should be, after every change of
addresses or routes, at the start, when it finds what a killed service left, and at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Self

from pm.linux.netlink import routing_tables
from pm.linux.netlink.source_routes import Change, Routing, Rule, changes, wanted
from pm.log import get_logger
from pm.model import LocalAddress

PAUSE_S = 1.0
CHILD_TIMEOUT_S = 20.0

log = get_logger()


class SourceRouting:
    """Made by ``open``; ``run`` follows what ``look`` tells of. What it made is gone at the end."""

    def __init__(
        self,
        enabled: Callable[[], bool],
        usable: Callable[[], Sequence[LocalAddress]],
        tunnels: Callable[[], Collection[int]],
    ) -> None:
        """``enabled`` is ``addresses.source_routing`` as it is now; ``tunnels`` are interfaces."""
        self._enabled = enabled
        self._usable = usable
        self._tunnels = tunnels
        self._changed = asyncio.Event()
        self._changed.set()
        self._told: Sequence[str] = ()
        self._off = False
        """It was disabled when the kernel was last asked, and nothing of ours was there."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        enabled: Callable[[], bool],
        usable: Callable[[], Sequence[LocalAddress]],
        tunnels: Callable[[], Collection[int]],
    ) -> AsyncIterator[Self]:
        routing = cls(enabled, usable, tunnels)
        await routing._sync()
        try:
            yield routing
        finally:
            await routing._apply(await asyncio.to_thread(_read, False, (), ()))

    def look(self) -> None:
        """Addresses, routes, rules or the configuration may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Follow them forever, at most once a second."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._sync()
            await asyncio.sleep(PAUSE_S)

    async def _sync(self) -> None:
        enabled = self._enabled()
        if self._off and not enabled:
            return
        todo = await asyncio.to_thread(_read, enabled, tuple(self._usable()), frozenset(self._tunnels()))
        self._off = not enabled and todo == []
        await self._apply(todo)

    async def _apply(self, todo: Sequence[Change] | OSError) -> None:
        if isinstance(todo, OSError):
            self._tell([f"reading rules and routes: {todo}"])
        elif todo:
            self._tell(await _run_child(todo))
            log.info("source_routing_changed", changes=len(todo))

    def _tell(self, refused: Sequence[str]) -> None:
        """Once: what is refused now may be refused after each change of routes."""
        if refused and refused != self._told:
            log.warning(
                "source_routing_failed", refused=list(refused), remedy="see `ip rule`; tried again at changes"
            )
        self._told = refused


def _read(
    enabled: bool, usable: Sequence[LocalAddress], tunnels: Collection[int]
) -> Sequence[Change] | OSError:
    """What to change; an error where the kernel does not tell. In a thread: ``main`` can be a full table."""
    try:
        there = routing_tables.read_ours()
        if not enabled:
            return changes(there, Routing())
        main = {family: routing_tables.read_main(family) for family in (4, 6)}
        return changes(there, wanted(usable, main, tunnels))
    except OSError as e:
        return e


async def _run_child(todo: Sequence[Change]) -> list[str]:
    """What the kernel refused, in words."""
    lines = [(verb, "rule" if isinstance(what, Rule) else "route", what) for verb, what in todo]
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "pm.linux.netlink.routing_child"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path)},
    )
    try:
        async with asyncio.timeout(CHILD_TIMEOUT_S):
            output, complaint = await child.communicate(json.dumps(lines).encode())
    except TimeoutError:
        return [f"the child took longer than {CHILD_TIMEOUT_S:.0f} s"]
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        return [complaint.decode(errors="replace").strip().rpartition("\n")[2]]
    refused: list[str] = json.loads(output)
    return refused
