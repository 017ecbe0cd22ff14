# SPDX-License-Identifier: Apache-2.0
"""Turns the ends of sessions into records, as the configuration wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from pm.api.views import encode
from pm.config.model import Records, RecordsTo
from pm.log_budget import get_limited_logger
from pm.records.destinations import Destination, Journal, RecordFile, StandardOutput
from pm.records.record import record_of
from pm.records.writer import Tally, Writer
from pm.sessions.endings import Ended

log = get_limited_logger()


class Recorder:
    """Made in the event loop's thread, and used there."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rules: Records | None = None
        self._writer: Writer | None = None
        self._tally = Tally()
        self._lines: list[bytes] = []  # of this turn of the loop

    @property
    def on_ended(self) -> Callable[[Ended], None] | None:
        """What is to hear of sessions that are over; None where nobody wants records."""
        return self._record if self._writer else None

    async def apply(self, rules: Records | None) -> None:
        """Let these be in force. What waits for the former destination is written first.

        Raises SystemUnfit where no thread can be started: then nothing has changed.
        """
        if rules == self._rules:
            return
        self._hand_over()
        former = self._writer
        if rules is None:
            await self.close()
            return
        self._writer = Writer(
            _destination(rules),
            tally=self._tally,
            on_trouble=partial(self._hear_of_trouble, rules),
            after=former,
        )
        self._rules = rules

    async def close(self) -> None:
        """Write what waits, within a few seconds."""
        self._hand_over()
        writer, self._writer, self._rules = self._writer, None, None
        if writer:
            await asyncio.to_thread(writer.close)

    def counts(self) -> Mapping[str, int]:
        """``records_written`` and ``records_lost`` since the start."""
        return {"records_written": self._tally.written, "records_lost": self._tally.lost}

    def _record(self, ended: Ended) -> None:
        if not self._lines:
            self._loop.call_soon(self._hand_over)
        self._lines.append(encode(record_of(ended)) + b"\n")

    def _hand_over(self) -> None:
        lines, self._lines = self._lines, []
        if self._writer and self._rules and not self._writer.put(lines):
            _tell(self._rules, "records wait to be written already, as many as there is room for")

    def _hear_of_trouble(self, rules: Records, error: OSError) -> None:
        with suppress(RuntimeError):  # the loop is closed: the service has ended
            self._loop.call_soon_threadsafe(_tell, rules, error.strerror or str(error))


def _tell(rules: Records, reason: str) -> None:
    where = rules.path if rules.to is RecordsTo.FILE else rules.to.value
    remedy = "sessions and subflows are not affected; see `mptcp-pm status` for the number"
    log.error("records_lost", about=where, to=where, reason=reason, remedy=remedy)


def _destination(rules: Records) -> Destination:
    match rules.to:
        case RecordsTo.FILE:
            return RecordFile(Path(rules.path), rules.max_size)
        case RecordsTo.JOURNALD:
            return Journal()
        case RecordsTo.STDOUT:
            return StandardOutput()
