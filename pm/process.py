# SPDX-License-Identifier: GPL-2.0-only
"""The process around the service: its event loop, its signals, and its exit status."""

from __future__ import annotations

import asyncio
import errno
import os
import resource

import uvloop

from pm import log
from pm.errors import ConfigError, PmError, SystemUnfit
from pm.linux.host.notify import notify
from pm.linux.host.scheduling import prefer_latency
from pm.log_budget import take_library_messages
from pm.service import open_service
from pm.starting import Settings
from pm.stopping import block_signals, set_on_signal

FILES = 65536
FILES_MIN = 128

_SHORTAGES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EROFS: "make it writable",
    errno.EMFILE: "allow the service more open files (`LimitNOFILE=` in the unit, `ulimit -n`)",
    errno.ENFILE: "allow more open files: sysctl -w fs.file-max=...",
    errno.ENOMEM: "free some memory",
}


def run(settings: Settings, *, log_level: str, log_format: str) -> int:
    """``mptcp-pm run``: serve until SIGTERM or SIGINT; the exit status."""
    log.configure(log_level, log_format)
    take_library_messages()
    prefer_latency()
    block_signals()
    try:
        _raise_limit_of_files()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_main(settings))
    except (PmError, OSError, ExceptionGroup) as e:
        errors = _errors_of(e)
        if errors is None:
            raise
        return _report(errors)
    return 0


def _raise_limit_of_files() -> None:
    """Take as many descriptors as are allowed: one per cgroup and program, and one per connection.

    Raises SystemUnfit where they are too few to start.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if allowed < FILES_MIN:
        raise SystemUnfit(
            f"only {allowed} open files are allowed, and the service needs {FILES_MIN}",
            _SHORTAGES[errno.EMFILE],
        )
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _report(errors: list[PmError]) -> int:
    """Print errors; the exit status that is the most particular of theirs."""
    for error in errors:
        log.write_line(str(error))
    return max(os.EX_CONFIG if isinstance(e, ConfigError) else e.exit_status for e in errors)


def _errors_of(error: BaseException) -> list[PmError] | None:
    """What a user can meet, of an exception or a group; None where a bug is in it."""
    match error:
        case PmError():
            return [error]
        case OSError() if error.errno in _SHORTAGES:
            where = f"{error.filename}: " if error.filename else ""
            return [PmError(f"{where}{error.strerror}", _SHORTAGES[error.errno])]
        case ExceptionGroup():
            leaves = [_errors_of(e) for e in error.exceptions]
            if None not in leaves:
                return [leaf for found in leaves if found for leaf in found]
    return None


async def _main(settings: Settings) -> None:
    stopping = asyncio.Event()
    set_on_signal(stopping)
    async with open_service(settings) as service:
        notify("READY=1")
        await service.run(stopping)
        notify("STOPPING=1")
