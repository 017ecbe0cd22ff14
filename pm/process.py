# SPDX-License-Identifier: Apache-2.0
"""The process around the service: its event loop, its signals, and its exit status."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import uvloop

from pm import log
from pm.errors import SHORTAGES, ConfigError, PmError, SystemUnfit, of_system
from pm.linux.host.notify import notify
from pm.linux.host.scheduling import prefer_latency
from pm.log_budget import take_library_messages
from pm.service import open_service
from pm.starting import Settings
from pm.stopping import block_signals, set_on_signal

FILES = 65536
FILES_MIN = 128
THREADS = 4

M_ARENA_MAX = -8  # malloc.h

_NoThread = RuntimeError  # what Python makes of EAGAIN


def run(settings: Settings, *, log_level: str, log_format: str) -> int:
    """``mptcp-pm run``: serve until SIGTERM or SIGINT; the exit status."""
    log.configure(log_level, log_format)
    take_library_messages()
    prefer_latency()
    block_signals()
    _share_heap()
    try:
        _raise_limit_of_files()
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        try:
            runner.run(_main(settings))
        finally:
            with suppress(_NoThread):  # it would start one to wait for the others
                runner.close()
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
            SHORTAGES[errno.EMFILE],
        )
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _share_heap() -> None:
    """One heap for all threads: glibc gives each its own, and ours only read files."""
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _start_threads() -> ThreadPoolExecutor:
    """Those that work on files, all of them now: later a neighbour may have taken the last task."""
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="files")
    all_there = threading.Barrier(THREADS + 1)
    try:
        for _ in range(THREADS):
            threads.submit(all_there.wait)
    except _NoThread:
        all_there.abort()
        raise
    all_there.wait()
    return threads


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
        case OSError() if error.errno in SHORTAGES:
            return [of_system(error)]
        case ExceptionGroup():
            leaves = [_errors_of(e) for e in error.exceptions]
            if None not in leaves:
                return [leaf for found in leaves if found for leaf in found]
    return None


async def _main(settings: Settings) -> None:
    stopping = asyncio.Event()
    try:
        set_on_signal(stopping)
        asyncio.get_running_loop().set_default_executor(_start_threads())
    except _NoThread as e:
        raise SystemUnfit("no thread can be started", SHORTAGES[errno.EAGAIN]) from e
    async with open_service(settings) as service:
        notify("READY=1")
        await service.run(stopping)
        notify("STOPPING=1")
