# SPDX-License-Identifier: Apache-2.0
"""Where records go.

``write`` takes lines with their newlines and may block. Where it raises OSError, they are lost; the next ones
are tried as if nothing had happened: a disk may have room again, a directory may be back.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
import stat
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

MODE = 0o640
JOURNAL = "/run/systemd/journal/socket"
_STDOUT = 1


class Destination(Protocol):
    def write(self, lines: Sequence[bytes]) -> int:
        """How many it wrote of them, from the first on; at least one."""
        ...

    def close(self) -> None: ...


class RecordFile:
    """A file that is begun anew once it has ``max_size`` bytes; the one before is kept as ``PATH.1``.

    It is opened again where somebody has moved or removed it. A line is in it whole, or not at all.
    """

    def __init__(self, path: Path, max_size: int) -> None:
        self._path = path
        self._before = path.with_name(path.name + ".1")
        self._max_size = max_size
        self._fd = -1

    def write(self, lines: Sequence[bytes]) -> int:
        size = self._open()
        if size and size + len(lines[0]) > self._max_size:
            os.replace(self._path, self._before)
            size = self._open()
        ends = list(itertools.accumulate(map(len, lines)))
        fitting = max(1, bisect_right(ends, self._max_size - size))
        written = os.write(self._fd, b"".join(lines[:fitting]))
        whole = bisect_right(ends, written)
        end = ends[whole - 1] if whole else 0
        if end < written:
            os.ftruncate(self._fd, size + end)
        if not whole:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        """Have the file that stands at the path now open; its size."""
        if self._fd >= 0 and not self._is_there():
            self.close()
        if self._fd < 0:
            self._fd = _open_file(self._path)
        return os.fstat(self._fd).st_size

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.lstat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return False


def _open_file(path: Path) -> int:
    # O_NONBLOCK: a FIFO would wait for its reader. O_NOFOLLOW: records go where the configuration says.
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, MODE)
    except FileExistsError:
        try:
            fd = os.open(path, flags)
        except OSError as e:
            if e.errno != errno.ELOOP:
                raise
            raise OSError(errno.ELOOP, "it is a symbolic link: name the file itself") from e
    else:
        os.fchmod(fd, MODE)  # whatever the umask
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":  # somebody died in the middle of a line
            os.write(fd, b"\n")
    except OSError:
        os.close(fd)
        raise
    return fd


class Journal:
    """systemd's journal, by its native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL)."""

    def __init__(self, path: str = JOURNAL) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def write(self, lines: Sequence[bytes]) -> int:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # JSON has no newline in it, and ends with one.
        fields = b"PRIORITY=6\nSYSLOG_IDENTIFIER=mptcp-pm\nMPTCP_PM_RECORD=session\nMESSAGE=" + lines[0]
        self._socket.sendto(fields, self._path)
        return 1

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None


class StandardOutput:
    """Logs go to standard error."""

    def write(self, lines: Sequence[bytes]) -> int:
        line = lines[0]
        while line:
            try:
                line = line[os.write(_STDOUT, line) :]
            except BlockingIOError:  # whoever shares it has made it so
                select.select([], [_STDOUT], [])
        return 1

    def close(self) -> None:
        """It stays the process's."""
