# SPDX-License-Identifier: Apache-2.0
"""Callbacks of the event loop that fail (netlink readers, timers) end the service: never half-alive."""

from __future__ import annotations

import asyncio
from typing import Any


async def failure_of_callbacks(loop: asyncio.AbstractEventLoop) -> None:
    """Wait forever, or raise the error of a callback that failed.

    asyncio names the callback's ``handle`` for these; other contexts (a task that nobody awaited,
    a transport) are logged as usual.
    """
    failure: asyncio.Future[None] = loop.create_future()

    def on_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if "handle" in context and error and not failure.done():
            failure.set_exception(error)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(on_error)
    await failure
