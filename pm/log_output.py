# SPDX-License-Identifier: Apache-2.0
"""Where log lines are written: standard error, whatever has become of it.

Nothing here raises, and nothing waits long: a full disk, a broken pipe, a closed descriptor or a reader
that has stopped costs lines, and they are counted.
"""

from __future__ import annotations

import os
import select
import threading
from typing import Final

PATIENCE_MS = 20
"""How long a line waits for its reader; once one has waited in vain, the next do not wait."""
_PIPE_BUF = 4096  # so much never blocks where poll() says POLLOUT: pipe(7)
_STDERR: Final = 2


class LineOutput:
    """Writes lines to a descriptor. ``lost`` counts those that could not be written in full."""

    def __init__(self, fd: int = _STDERR) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._stalled = False
        self._torn = False
        self.lost = 0

    def write(self, line: str) -> None:
        data = line.encode(errors="backslashreplace") + b"\n"
        with self._lock:
            if self._torn:  # half of a line stands there
                data = b"\n" + data
            written = self._write(data)
            if written:
                self._torn = written < len(data)
            self.lost += written < len(data)

    def _write(self, data: bytes) -> int:
        """How many bytes were written."""
        written = 0
        try:
            while written < len(data) and self._is_writable():
                written += os.write(self._fd, data[written : written + _PIPE_BUF])
        except OSError:
            pass
        return written

    def _is_writable(self) -> bool:
        """Whether a write would not block, nor raise as far as poll() knows."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        ready = poll.poll(0 if self._stalled else PATIENCE_MS)
        self._stalled = not ready
        return bool(ready) and not ready[0][1] & (select.POLLNVAL | select.POLLERR)


output = LineOutput()
"""The process's one: standard error is one for all."""


class OutputLogger:
    """What structlog calls with a rendered line: a method for each level."""

    def msg(self, line: str) -> None:
        output.write(line)

    log = debug = info = warn = warning = error = critical = exception = fatal = failure = err = msg


def secure_standard_descriptors() -> None:
    """Open /dev/null where standard input, output or error is closed: no socket shall get its number."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= _STDERR:
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
