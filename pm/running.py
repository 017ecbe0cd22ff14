# SPDX-License-Identifier: Apache-2.0
"""Runs the parts of the service until it is told to stop, or until one of them fails."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pm.api.control import ServiceState
from pm.callbacks import failure_of_callbacks
from pm.garbage import collect_seldom
from pm.log import get_logger
from pm.reloader import Reloader

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Runs the parts until it is told to stop; made by ``pm.service.open_service``.

    ``compared`` is set once the sessions agree with the kernel's.
    """

    state: ServiceState
    reloader: Reloader
    compared: asyncio.Event
    attached: Callable[[], Mapping[str, str]]
    parts: Sequence[Callable[[], Coroutine[Any, Any, None]]]

    async def run(self, stopping: asyncio.Event) -> None:
        """Until ``stopping`` is set. A part that fails ends the service with its error."""
        loop = asyncio.get_running_loop()
        hangup = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
        first = [failure_of_callbacks(loop), self.reloader.on_hangup(hangup)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in (*first, *(run() for run in self.parts))]
            await self.compared.wait()
            self.state.ready = True
            collect_seldom()
            state, cgroups = self.state, len(self.attached())
            facts = {"config": str(state.config_path), "policies": len(state.loaded.config.policies)}
            log.info("started", selection=state.selection, **facts, cgroups=cgroups)
            await stopping.wait()
            log.info("stopping")
            for task in tasks:
                task.cancel()
