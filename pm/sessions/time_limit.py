# SPDX-License-Identifier: Apache-2.0
"""Ends a third party's code that runs for too long in the event loop's thread."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class TookTooLong(BaseException):
    """Raised inside the code that took too long: no ``except Exception`` there keeps it."""


class TimeLimit:
    """``with limit:`` raises TookTooLong in its block after ``seconds``; for the main thread.

    SIGALRM is its own. Code that catches everything, or that never returns from C, goes on: the
    service manager's watchdog ends the service then.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running = False
        signal.signal(signal.SIGALRM, self._expired)

    def __enter__(self) -> None:
        self._running = True
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _expired(self, number: int, frame: FrameType | None) -> None:
        if self._running:
            self._running = False
            raise TookTooLong(f"took longer than {self._seconds:g} s")
