# SPDX-License-Identifier: Apache-2.0
"""Bytes per second of sessions, from what two lists of them say. Pure."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

Json = Mapping[str, Any]
HISTORY = 120
# The service's clock may be set. What it says of the time between two lists must not be more than went by
# here by this: answers come late, and are kept for a second.
CLOCKS_DIFFER_S = 5.0


class Rate(NamedTuple):
    """Bytes per second."""

    sent: float
    received: float

    @property
    def both(self) -> float:
        return self.sent + self.received


class _Sample(NamedTuple):
    time: float  # of the service's clock
    here: float  # of our own, which nobody sets
    subflows: dict[str, tuple[int, int] | None]  # bytes sent and received by id; None where not known


class SessionRates:
    """Of the sessions in the last list; of no others anything is kept."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._samples: dict[str, _Sample] = {}
        self._rates: dict[str, Rate] = {}
        self._histories: dict[str, deque[float | None]] = {}

    def update(self, sessions: Sequence[Json]) -> None:
        now = self._now()
        samples, rates, histories = self._samples, self._rates, self._histories
        self._samples, self._rates, self._histories = {}, {}, {}
        for session in sessions:
            token, new = session["token"], _sample(session, now)
            old, rate = samples.get(token), rates.get(token)
            history = self._histories[token] = histories.get(token) or deque(maxlen=HISTORY)
            self._samples[token] = new
            if old and new.time == old.time:  # the service keeps what it says for a second
                self._samples[token] = old
            elif old:
                rate = _rate(old, new)
                history.extend([rate.both] if rate else [])
            if rate:
                self._rates[token] = rate

    def rate(self, token: str) -> Rate | None:
        """None until the session was listed twice, also after the service's clock was set."""
        return self._rates.get(token)

    def history(self, token: str) -> Sequence[float | None]:
        """Sent and received together, newest last."""
        return list(self._histories.get(token, ()))


def _sample(session: Json, here: float) -> _Sample:
    return _Sample(
        datetime.fromisoformat(session["sampled_at"]).timestamp(),
        here,
        {
            s["id"]: None if s["bytes_sent"] is None else (s["bytes_sent"], s["bytes_received"])
            for s in session["subflows"]
        },
    )


def _rate(old: _Sample, new: _Sample) -> Rate | None:
    """A subflow that was not there before started with nothing; one that has ended counts no more.

    None where the clock was set in between.
    """
    took = new.time - old.time
    if not 0 < took <= new.here - old.here + CLOCKS_DIFFER_S:
        return None
    sent = received = 0
    for id_, now in new.subflows.items():
        then = old.subflows.get(id_, (0, 0))
        if now and then:
            sent += max(0, now[0] - then[0])
            received += max(0, now[1] - then[1])
    return Rate(sent / took, received / took)
