# SPDX-License-Identifier: Apache-2.0
"""Takes out of texts what nobody else may read: bearer tokens, private keys, and what looks like them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import Any

from pm.notation import parse_listen

REMOVED = "[removed]"
READ_MAX = 64 << 10
SHORTEST = 6  # what is shorter is a word that texts have anyway
_SECRET_KEY = re.compile(r"^api$|token|key|secret|passw|passphrase|pwd|credential|auth|bearer", re.IGNORECASE)
_WORD = re.compile("[A-Za-z_]{1,24}")  # and no secret, where none is to be expected
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL)


class Secrets:
    """Texts that are secret, as they were found."""

    def __init__(self) -> None:
        self._texts: set[str] = set()

    def learn_file(self, path: str) -> None:
        """Every line of a file of credentials, where it can be read at all."""
        try:
            # Non-blocking: opening a FIFO without a writer would hang.
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
                content = file.read(READ_MAX)
        except (OSError, ValueError):
            return
        self._learn(content.decode(errors="replace"))

    def without(self, data: Any, known: Collection[str]) -> Any:
        """A configuration without what may be a secret, which is learned.

        What stands below ``known`` keys stays. Of the API, of what has a key that names a secret and of what
        has an unknown key only paths to what can be there, addresses to listen on and flags stay.
        """
        return self._without(data, known, not isinstance(data, dict))

    def _without(self, data: Any, known: Collection[str], secret: bool) -> Any:
        if isinstance(data, dict):
            shown = {}
            for key, value in data.items():
                names_secret = bool(_SECRET_KEY.search(key))
                if key in known:
                    shown[key] = self._without(value, known, secret or names_secret)
                else:
                    is_word = _WORD.fullmatch(key) and (names_secret or not secret)
                    shown[key if is_word else self._removed(key)] = self._without(value, known, True)
            return shown
        if isinstance(data, list):
            return [self._without(item, known, secret) for item in data]
        if not secret or data is None or isinstance(data, bool) or _is_harmless(str(data)):
            return data
        return data if data in known else self._removed(str(data))

    def _removed(self, text: str) -> str:
        self._learn(text)
        self._learn(repr(text)[1:-1])  # as messages have it
        return REMOVED

    def _learn(self, text: str) -> None:
        lines = (line.strip() for line in text.splitlines())
        self._texts |= {line for line in lines if len(line) >= SHORTEST and not line.startswith("-----")}

    def scrub(self, text: str) -> str:
        """The text without any secret that is known, and without anything in PEM."""
        text = _PEM.sub(REMOVED, text)
        for secret in sorted(self._texts, key=len, reverse=True):
            text = text.replace(secret, REMOVED)
        return text


def _is_harmless(text: str) -> bool:
    """Paths of which at least the directory is there: base64 may begin with a slash too."""
    if text.startswith("/"):
        directory = os.path.dirname(text)
        return os.path.lexists(text) or (directory != "/" and os.path.isdir(directory))
    try:
        parse_listen(text)
    except ValueError:
        return False
    return True
