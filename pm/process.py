# SPDX-License-Identifier: GPL-2.0-only
"""The process around the service: its event loop, its signals, and its exit status."""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop

from pm import log
from pm.errors import ConfigError, PmError
from pm.linux.host.notify import notify
from pm.linux.host.scheduling import prefer_latency
from pm.service import Settings, open_service
from pm.stopping import block_signals, set_on_signal


def run(settings: Settings, *, log_level: str, log_format: str) -> int:
    """``mptcp-pm run``: serve until SIGTERM or SIGINT; the exit status."""
    log.configure(log_level, log_format)
    prefer_latency()
    block_signals()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_main(settings))
    except PmError as e:
        return _report([e])
    except ExceptionGroup as group:
        errors, bugs = group.split(PmError)
        if bugs or errors is None:
            raise
        return _report(_leaves(errors))
    return 0


def _report(errors: list[PmError]) -> int:
    """Print errors; the exit status that is the most particular of theirs."""
    print(*errors, sep="\n", file=sys.stderr)
    return max(os.EX_CONFIG if isinstance(e, ConfigError) else e.exit_status for e in errors)


def _leaves(error: PmError | ExceptionGroup[PmError]) -> list[PmError]:
    if isinstance(error, ExceptionGroup):
        return [leaf for e in error.exceptions for leaf in _leaves(e)]
    return [error]


async def _main(settings: Settings) -> None:
    stopping = asyncio.Event()
    set_on_signal(stopping)
    async with open_service(settings) as service:
        notify("READY=1")
        await service.run(stopping)
        notify("STOPPING=1")
