# SPDX-License-Identifier: Apache-2.0
"""The system's checks as they are now: sysctls change while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pm.errors import PmError
from pm.linux.host.probe import probe_sysctls
from pm.linux.host.system_check import SystemCheck
from pm.log import get_logger
from pm.upkeep import Change

log = get_logger()


class LiveChecks:
    """Keeps a list of checks up to date. What is required and missing is not ours to set: it is reported."""

    def __init__(self, checks: list[SystemCheck]) -> None:
        """``checks`` is changed in place."""
        self._checks = checks
        self._seen: dict[str, SystemCheck] = {}

    async def look(self) -> dict[str, Change]:
        """The required checks that fail now (``pm.upkeep.Kept``)."""
        found = {check.name: check for check in await asyncio.to_thread(probe_sysctls)}
        for place, before in enumerate(self._checks):
            now = found.get(before.name, before)
            self._checks[place] = now
            if now != self._seen.get(now.name, now):
                log.warning("system_changed", check=now.name, found=now.found, before=before.found)
        self._seen = found
        return {
            check.name: Change(f"is {check.found}", _refuse(check))
            for check in found.values()
            if check.required and not check.ok
        }


def _refuse(check: SystemCheck) -> Callable[[], Awaitable[None]]:
    async def restore() -> None:
        raise PmError("the service does not set it", check.remedy)

    return restore
