# SPDX-License-Identifier: Apache-2.0
"""The code in the address that ``mptcp-pm web`` prints: good for one login, within a minute."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable

GOOD_S = 60.0


class OneTimeCode:
    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.text = secrets.token_urlsafe(16)
        self._now = now
        self._ends = now() + GOOD_S

    def redeem(self, given: str) -> bool:
        """Whether it is this one; it is good no more then."""
        good = hmac.compare_digest(given.encode(errors="replace"), self.text.encode())
        if not good or self._now() >= self._ends:
            return False
        self._ends = 0.0
        return True
