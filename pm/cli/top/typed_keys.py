# SPDX-License-Identifier: Apache-2.0
"""Bytes of a terminal as keys. Pure."""

from __future__ import annotations

import re
from enum import StrEnum


class Key(StrEnum):
    """A key that is no character. Their values are longer than a character."""

    UP = "up"
    DOWN = "down"
    LEFT = "left"
    RIGHT = "right"
    HOME = "home"
    END = "end"
    PAGE_UP = "page up"
    PAGE_DOWN = "page down"
    ENTER = "enter"
    ESCAPE = "escape"
    TAB = "tab"
    BACK_TAB = "back tab"
    BACKSPACE = "backspace"
    CLEAR_LINE = "clear line"
    REDRAW = "redraw"


_CONTROLS = {
    "\r": Key.ENTER, "\n": Key.ENTER, "\t": Key.TAB, "\x7f": Key.BACKSPACE, "\x08": Key.BACKSPACE,
    "\x15": Key.CLEAR_LINE, "\x0c": Key.REDRAW, "\x1b": Key.ESCAPE,
}  # fmt: skip
# What follows ESC [ or ESC O; numbers of modifiers are left out.
_SEQUENCES = {
    "A": Key.UP, "B": Key.DOWN, "C": Key.RIGHT, "D": Key.LEFT, "H": Key.HOME, "F": Key.END, "Z": Key.BACK_TAB,
    "1~": Key.HOME, "7~": Key.HOME, "4~": Key.END, "8~": Key.END, "5~": Key.PAGE_UP, "6~": Key.PAGE_DOWN,
    "M": Key.ENTER,
}  # fmt: skip
_SEQUENCE = re.compile(r"\x1b(?:O|\[)(\d*)(?:;[\d;]*)?([A-Za-z~])")
_UNFINISHED = re.compile(
    rb"\x1b(?:O|\[[\d;]*)?\Z|[\xc0-\xdf]\Z|[\xe0-\xef][\x80-\xbf]?\Z|[\xf0-\xf7][\x80-\xbf]{0,2}\Z"
)


def is_unfinished(data: bytes) -> bool:
    """Whether more bytes may belong to the last key."""
    return bool(_UNFINISHED.search(data))


def decode(data: bytes) -> list[str]:
    """Keys and characters in the order typed; what is no key of ours is left out."""
    text = data.decode(errors="ignore")
    keys: list[str] = []
    at = 0
    while at < len(text):
        if found := _SEQUENCE.match(text, at):
            number, final = found.groups()
            key = _SEQUENCES.get(f"{number}~" if final == "~" else final)
            keys += [key] if key else []
            at = found.end()
            continue
        character = text[at]
        if character in _CONTROLS:
            keys.append(_CONTROLS[character])
        elif character.isprintable():
            keys.append(character)
        at += 1
    return keys
