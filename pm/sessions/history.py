# SPDX-License-Identifier: GPL-2.0-only
"""What happened to a session, newest last, bounded."""

from __future__ import annotations

from typing import NamedTuple

LENGTH = 32


class Entry(NamedTuple):
    """``time`` is seconds since the epoch, ``event`` a snake_case name; ``detail`` is shown with str()."""

    time: float
    event: str
    detail: object


class History(list[Entry]):
    """The last ``LENGTH`` entries. A list without slack: a busy host keeps one per session."""

    __slots__ = ()

    def add(self, time: float, event: str, detail: object = "") -> None:
        if len(self) >= LENGTH:
            del self[0]
        self.append(Entry(time, event, detail))
