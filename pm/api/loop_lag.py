# SPDX-License-Identifier: Apache-2.0
"""How late the event loop comes round: what waits while it is busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

INTERVAL_S = 0.25


async def observe_lag(observe: Callable[[float], None]) -> None:
    """Until cancelled: four times a second, by how many seconds a timer was late."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)
        observe(max(loop.time() - due, 0.0))
