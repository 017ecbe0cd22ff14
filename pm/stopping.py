# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and SIGINT end the service, also where a third party's code never gives the event loop back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
import traceback

from pm.log import get_logger

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ANSWER_S = 5.0  # an event loop that answers later than that is taken for blocked
ASK_AGAIN_S = 1.0

log = get_logger()


def block_signals() -> None:
    """Leave the signals to ``set_on_signal``. Before any thread is started: threads inherit it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def set_on_signal(stopping: asyncio.Event) -> None:
    """Set ``stopping`` when one of the signals comes. A Python handler would never run in a blocked loop."""
    loop, main = asyncio.get_running_loop(), threading.get_ident()
    threading.Thread(target=_wait, args=(loop, main, stopping), name="signals", daemon=True).start()


def _wait(loop: asyncio.AbstractEventLoop, main: int, stopping: asyncio.Event) -> None:
    signal.sigwait(SIGNALS)
    try:
        loop.call_soon_threadsafe(stopping.set)
        while _answers(loop):
            time.sleep(ASK_AGAIN_S)
    except RuntimeError:
        return  # the loop is closed: the service has ended
    stack = traceback.format_stack(sys._current_frames()[main])
    log.error(
        "stopped_by_force", reason=f"the event loop was blocked for {ANSWER_S:g} s", stack="".join(stack)
    )
    os._exit(1)


def _answers(loop: asyncio.AbstractEventLoop) -> bool:
    answered = threading.Event()
    loop.call_soon_threadsafe(answered.set)
    return answered.wait(ANSWER_S)
