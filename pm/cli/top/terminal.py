# SPDX-License-Identifier: Apache-2.0
"""The whole screen of a terminal, and its keys; it is as before, however the command ends."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import termios
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.text import Text

from pm.cli.top.typed_keys import decode, is_unfinished

# The other screen, no cursor, and no line that goes on in the next one.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
# The rest of a key's bytes comes at once, also through ssh.
REST_OF_KEY_S = 0.05
READ_MAX = 4096
USUAL_SIZE = os.terminal_size((80, 24))


class Terminal:
    """``with Terminal(console) as terminal:``. Ctrl-C sets ``interrupted``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._input = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self.interrupted = False

    def __enter__(self) -> Terminal:
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        if self._input is not None:
            self._before = termios.tcgetattr(self._input)
        for number, handler in (
            (signal.SIGINT, self._interrupt),
            (signal.SIGWINCH, self._noted),
            (signal.SIGTSTP, self._stop),
            (signal.SIGCONT, self._continue),
            (signal.SIGTERM, self._end),
            (signal.SIGHUP, self._end),
            (signal.SIGQUIT, self._end),
        ):
            if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup, or without job control
                self._handlers[number] = signal.signal(number, handler)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._wake)
        os.close(self._waker)

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines now; a serial line may not know them."""
        with contextlib.suppress(OSError, ValueError):
            size = os.get_terminal_size(self._console.file.fileno())
            if size.columns and size.lines:
                return size
        return USUAL_SIZE

    def draw(self, lines: Sequence[Text]) -> None:
        """Show these lines, as many as fit, from the top."""
        width, height = self.size
        rows = []
        for line in lines[:height]:
            shown = line.copy()
            shown.truncate(width)
            with self._console.capture() as captured:
                self._console.print(shown, end="", soft_wrap=True)
            # At the end of a full line this would erase its last character.
            rows.append(captured.get() + ("\x1b[K" if shown.cell_len < width else ""))
        self._write("\x1b[H" + "\r\n".join(rows) + ("\x1b[J" if len(rows) < height else ""))

    def keys(self, timeout_s: float, *others: int) -> list[str]:
        """Wait for keys, a signal, one of the descriptors ``others``, or the time; the keys typed.

        Raises EOFError when the terminal is gone.
        """
        watched = [self._wake, *others, *([] if self._input is None else [self._input])]
        ready = select.select(watched, [], [], timeout_s)[0]
        if self._wake in ready:
            os.read(self._wake, READ_MAX)
        if self._input is None or self._input not in ready:
            return []
        data = os.read(self._input, READ_MAX)
        if not data:
            raise EOFError
        while is_unfinished(data) and select.select([self._input], [], [], REST_OF_KEY_S)[0]:
            more = os.read(self._input, READ_MAX)
            data += more
            if not more or len(data) > READ_MAX:
                break
        return decode(data)

    def _write(self, text: str) -> None:
        """Not by the file object: a signal handler may write while it writes."""
        output = self._console.file.fileno()
        data = text.encode(self._console.encoding, errors="replace")
        while data:
            try:
                data = data[os.write(output, data) :]
            except BlockingIOError:  # another program has made the terminal so
                select.select([], [output], [])

    def _take(self) -> None:
        if self._input is not None:
            mode = termios.tcgetattr(self._input)
            mode[3] &= ~(termios.ICANON | termios.ECHO)  # each key at once; Ctrl-C and Ctrl-Z stay signals
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            self._set_mode(mode)
        self._write(_ENTER)

    def _give_back(self) -> None:
        with contextlib.suppress(OSError):
            self._write(_LEAVE)
        if self._input is not None:
            with contextlib.suppress(termios.error):
                self._set_mode(self._before)

    def _set_mode(self, mode: list[Any]) -> None:
        while True:
            try:
                return termios.tcsetattr(self._input or 0, termios.TCSADRAIN, mode)
            except termios.error as e:
                # In the background the kernel stops whoever sets it, and SIGCONT interrupts it.
                if e.args[0] != errno.EINTR:
                    raise

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True

    def _noted(self, number: int, frame: FrameType | None) -> None:
        """It wakes ``keys``: the next frame has the new size."""

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._give_back()
        self._kill(number)  # it goes on below when it is continued
        signal.signal(number, self._stop)
        self._take()

    def _continue(self, number: int, frame: FrameType | None) -> None:
        """After SIGSTOP, which nobody hears, another program has had the terminal."""
        self._take()

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._give_back()
        self._kill(number)

    def _kill(self, number: int) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
