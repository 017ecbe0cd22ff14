# SPDX-License-Identifier: Apache-2.0
"""What a terminal can show: bars and sparklines, in blocks or in ASCII, and text that commands it nothing."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from pm.names import printable


class Glyphs(NamedTuple):
    """The characters that a terminal has, each one column wide."""

    levels: str  # of a sparkline, lowest first
    eighths: str  # of the last column of a bar
    more: str
    all_characters: bool

    def clean(self, text: str) -> str:
        """Text in one line of characters that the terminal has."""
        safe = printable(text)
        if self.all_characters:
            return safe
        return "".join(c if c in string.printable else "?" for c in safe.translate(_PLAIN))

    def cut(self, text: str, width: int, *, left: bool = False) -> str:
        """Text in at most ``width`` columns; ``left``: the end of it is what matters."""
        if cell_len(text) <= width:
            return text
        if width <= 1:
            return self.more[:width]
        if left:
            # A wide character may be cut in two: what is left of it is a blank.
            return self.more + set_cell_size(text[::-1], width - 1)[::-1]
        return set_cell_size(text, width - 1).rstrip() + self.more

    def sparkline(self, values: Sequence[float | None], width: int) -> str:
        """The last values, newest right, the highest of them at full height; a blank where none is known."""
        shown = values[-width:] if width > 0 else []
        top = max((value for value in shown if value is not None), default=0.0)
        steps = len(self.levels) - 1

        def level(value: float | None) -> str:
            if value is None:
                return " "
            # What is more than nothing is seen to be.
            return self.levels[min(steps, -int(-value * steps // top))] if top > 0 else self.levels[0]

        return "".join(map(level, shown)).rjust(max(width, 0))

    def bar(self, share: float | None, width: int) -> str:
        """A bar of ``width`` columns when ``share`` is 1."""
        if share is None or width <= 0:
            return ""
        full, part = divmod(round(min(max(share, 0.0), 1.0) * width * 8), 8)
        last = self.eighths[part - 1] if part else ""
        return (self.eighths[-1] * full + last).rstrip()


_PLAIN = str.maketrans({"–": "-", "→": ">", "×": "x", "…": "~", "↑": "^", "↓": "v", "·": "."})
BLOCKS = Glyphs("▁▂▃▄▅▆▇█", "▏▎▍▌▋▊▉█", "…", True)
ASCII = Glyphs("_.-=+*#", "   ----#", "~", False)


def glyphs_for(encoding: str, environ: Mapping[str, str]) -> Glyphs:
    """Python writes UTF-8 also where LC_ALL says that there is none; a Linux console has few blocks."""
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    is_plain = locale.partition(".")[0] in ("C", "POSIX") and "utf" not in locale.lower()
    if is_plain or environ.get("TERM") == "linux" or "utf" not in encoding.lower():
        return ASCII
    return BLOCKS
