# SPDX-License-Identifier: Apache-2.0
"""A command on a pseudo terminal: what a user sees, types, and finds afterwards."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import pyte

from tests.lab.waiting import PATIENCE, wait_for

# What another screen, a hidden cursor and lines that do not go on are switched with.
MODES = {"1049": False, "25": True, "7": True}


class PseudoTerminal:
    """``with PseudoTerminal(command) as terminal:``; the command is the leader of the terminal's session."""

    def __init__(
        self,
        command: Sequence[str],
        columns: int = 80,
        lines: int = 24,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self.written = b""
        self._ours, self._theirs = pty.openpty()
        self.resize(columns, lines, tell=False)
        self.modes_before = termios.tcgetattr(self._theirs)
        kept = {
            key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")
        }
        self.process = subprocess.Popen(
            command,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env={**kept, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **(environment or {})},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> PseudoTerminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._theirs)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # nobody has the other end any more
                data = b""
            if not data:
                os.close(self._ours)
                return
            with self._lock:
                self.written += data
                self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        with self._lock:
            return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def send(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, lines: int, *, tell: bool = True) -> None:
        with self._lock:
            self._screen.resize(lines, columns)
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def expect(self, *words: str, deadline_s: float = 20.0) -> str:
        """Wait until all these words are on the screen; the screen."""
        return wait_for(
            lambda: self.text,
            f"{words} on the screen",
            until=lambda text: all(word in text for word in words),
            deadline_s=deadline_s,
        )

    def end(self, deadline_s: float = 10.0) -> int:
        """Wait until the command has ended; its status."""
        return self.process.wait(deadline_s * PATIENCE)

    def settings(self) -> list[Any]:
        """What `stty -g` shows."""
        return termios.tcgetattr(self._theirs)

    def modes(self) -> dict[str, bool]:
        """Whether the other screen is shown, the cursor, and whether lines go on in the next."""
        with self._lock:
            written = self.written
        modes = {}
        for mode, at_start in MODES.items():
            on, off = (written.rfind(f"\x1b[?{mode}{last}".encode()) for last in "hl")
            modes[mode] = at_start if on == off else on > off
        return modes
