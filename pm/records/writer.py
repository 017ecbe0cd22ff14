# SPDX-License-Identifier: Apache-2.0
"""Writes records in a thread of its own: what is slow or broken there costs records, and nothing else."""

from __future__ import annotations

import errno
import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence

from pm.errors import SHORTAGES, SystemUnfit
from pm.records.destinations import Destination

QUEUE_BYTES = 16 << 20
AT_ONCE = 64  # lines
FLUSH_S = 3.0


class Tally:
    """How many records were written, and how many were lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.written = 0
        self.lost = 0

    def add(self, *, written: int = 0, lost: int = 0) -> None:
        with self._lock:
            self.written += written
            self.lost += lost


class Writer:
    def __init__(
        self,
        destination: Destination,
        *,
        tally: Tally,
        on_trouble: Callable[[OSError], None],
        after: Writer | None = None,
    ) -> None:
        """``on_trouble`` hears of the first record of a row that was not written, and of those left.

        The latter when this one is closed. It is called in the thread, or in that which closes this one.

        Nothing is written before ``after`` is closed, which this one sees to. Raises SystemUnfit where no
        thread can be started.
        """
        self._destination = destination
        self._tally = tally
        self._on_trouble = on_trouble
        self._after = after
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._given_up = False
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as e:
            raise SystemUnfit("no thread can be started", SHORTAGES[errno.EAGAIN]) from e

    def put(self, lines: Sequence[bytes]) -> bool:
        """Have lines written soon; False where the queue is full, and the last of them are lost."""
        taken = 0
        with self._changed:
            for line in lines:
                if self._bytes + len(line) > QUEUE_BYTES:
                    break
                self._lines.append(line)
                self._bytes += len(line)
                taken += 1
            self._changed.notify()
        self._tally.add(lost=len(lines) - taken)
        return taken == len(lines)

    def close(self) -> None:
        """Write what waits, for at most ``FLUSH_S``; what is left then is lost."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(FLUSH_S)
        with self._changed:
            left = 0 if self._given_up else len(self._lines)
            self._given_up = True
        if left:
            self._tally.add(lost=left)
            self._on_trouble(OSError(errno.ETIMEDOUT, f"{left} records still waited to be written"))

    def _run(self) -> None:
        if self._after:
            self._after.close()
            self._after = None
        failing = False
        while lines := self._next():
            try:
                done = self._destination.write(lines)
            except OSError as e:
                if not failing:
                    self._on_trouble(e)
                failing = True
                done = len(lines)
            else:
                failing = False
            self._remove(done, lost=failing)
        self._destination.close()

    def _next(self) -> Sequence[bytes]:
        """The next lines, which stay in the queue; none once there is none and will be none."""
        with self._changed:
            while not self._lines and not self._closing:
                self._changed.wait()
            return [] if self._given_up else list(itertools.islice(self._lines, AT_ONCE))

    def _remove(self, number: int, *, lost: bool) -> None:
        with self._changed:
            if self._given_up:  # and counted
                return
            self._bytes -= sum(len(self._lines.popleft()) for _ in range(number))
            self._tally.add(written=0 if lost else number, lost=number if lost else 0)
