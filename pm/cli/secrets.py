# SPDX-License-Identifier: Apache-2.0
"""Takes out of texts what nobody else may read: bearer tokens, private keys, and what looks like them."""

from __future__ import annotations

import os
import re
from typing import Any

REMOVED = "[removed]"
READ_MAX = 64 << 10
SHORTEST = 6  # what is shorter is a word that texts have anyway
_SECRET_KEY = re.compile(r"token|key|secret|passw|passphrase|credential", re.IGNORECASE)
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

    def without(self, data: Any, secret: bool = False) -> Any:
        """Plain data without what stands below a key that names a secret; it is known from then on.

        Absolute paths stay.
        """
        if isinstance(data, dict):
            return {k: self.without(v, secret or bool(_SECRET_KEY.search(str(k)))) for k, v in data.items()}
        if isinstance(data, list):
            return [self.without(item, secret) for item in data]
        if not secret or data is None or isinstance(data, bool) or str(data).startswith("/"):
            return data
        self._learn(str(data))
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
