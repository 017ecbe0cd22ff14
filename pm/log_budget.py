# SPDX-License-Identifier: Apache-2.0
"""Log lines whose number others decide: a peer, a plug-in, a program, a reader of the API.

They take their logger from here. Of each event, each subject has one line in a minute, and so have at most
``LINES_MAX`` subjects; what was left out is counted, and the minute ends with a summary of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pm.log import get_logger

WINDOW_S = 60.0
LINES_MAX = 10
MESSAGE_MAX = 4000


@dataclass(slots=True)
class _Subject:
    """``repeats``: occurrences since its line was written; ``data`` are those of the last one."""

    data: dict[str, Any]
    repeats: int = 0


@dataclass(slots=True)
class _Window:
    """One minute of one event. ``others``: occurrences of subjects beyond ``LINES_MAX``."""

    level: str
    began: float
    subjects: dict[Hashable, _Subject] = field(default_factory=dict)
    others: int = 0


class LimitedLogger:
    """A logger with a budget per event. ``about`` says which subject an event is about: a token, a name."""

    def __init__(self, logger: Any, monotonic: Callable[[], float]) -> None:
        self._logger = logger
        self._monotonic = monotonic
        self._windows: dict[str, _Window] = {}

    def info(self, event: str, *, about: Hashable = None, **data: Any) -> None:
        self._write("info", event, about, data)

    def warning(self, event: str, *, about: Hashable = None, **data: Any) -> None:
        self._write("warning", event, about, data)

    def error(self, event: str, *, about: Hashable = None, **data: Any) -> None:
        self._write("error", event, about, data)

    def exception(self, event: str, *, about: Hashable = None, **data: Any) -> None:
        """An error with the traceback of the exception that is being handled; a summary has none."""
        self._write("exception", event, about, data)

    def write_summaries(self, *, ending: bool = False) -> None:
        """The summaries of the minutes that are over, or of all (``ending``)."""
        now = self._monotonic()
        for event, window in list(self._windows.items()):
            if ending or now >= window.began + WINDOW_S:
                del self._windows[event]
                self._summarise(event, window, now)

    async def run(self) -> None:
        """Write each summary soon after its minute, until cancelled; then those that are left."""
        try:
            while True:
                await asyncio.sleep(WINDOW_S / 4)
                self.write_summaries()
        finally:
            self.write_summaries(ending=True)

    def _write(self, level: str, event: str, about: Hashable, data: dict[str, Any]) -> None:
        window, now = self._windows.get(event), self._monotonic()
        if window and now >= window.began + WINDOW_S:
            self._summarise(event, window, now)
            window = None
        if window is None:
            window = self._windows[event] = _Window(level, now)
        if subject := window.subjects.get(about):
            subject.repeats += 1
            subject.data = data
        elif len(window.subjects) < LINES_MAX:
            window.subjects[about] = _Subject(data)
            getattr(self._logger, level)(event, **data)
        else:
            window.others += 1

    def _summarise(self, event: str, window: _Window, now: float) -> None:
        write = getattr(self._logger, "error" if window.level == "exception" else window.level)
        period_s = round(now - window.began)
        for subject in window.subjects.values():
            if subject.repeats:
                write(event, **subject.data, repeated=subject.repeats, period_s=period_s)
        if window.others:
            write(event, others=window.others, period_s=period_s)


@cache
def get_limited_logger() -> LimitedLogger:
    """The process's one: its budget is for all modules together."""
    return LimitedLogger(get_logger(), time.monotonic)


def take_library_messages() -> None:
    """Write what libraries (asyncio, aiohttp) log with ``logging``, as the event ``library_message``.

    From level warning on, and within the budget: a stranger can cause many of them.
    """
    logging.basicConfig(handlers=[_LibraryMessages()], level=logging.WARNING, force=True)


class _LibraryMessages(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        data: dict[str, Any] = {"logger": record.name, "message": record.getMessage()[:MESSAGE_MAX]}
        if record.exc_info and (error := record.exc_info[1]):
            data["exception"] = "".join(traceback.format_exception(error))[-MESSAGE_MAX:]
        write = get_limited_logger()
        about = (record.name, str(record.msg)[:80])
        if record.levelno >= logging.ERROR:
            write.error("library_message", about=about, **data)
        else:
            write.warning("library_message", about=about, **data)

    def handleError(self, record: logging.LogRecord) -> None:  # logging's name
        """A message that cannot be formatted is a library's bug and costs its line."""
