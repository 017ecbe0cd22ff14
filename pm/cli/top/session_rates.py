# SPDX-License-Identifier: Apache-2.0
"""Bytes per second of sessions, from what two lists of them say. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

Json = Mapping[str, Any]
HISTORY = 120


class Rate(NamedTuple):
    """Bytes per second."""

    sent: float
    received: float

    @property
    def both(self) -> float:
        return self.sent + self.received


class _Sample(NamedTuple):
    time: float
    subflows: dict[str, tuple[int, int] | None]  # bytes sent and received by id; None where not known


class SessionRates:
    """Of the sessions in the last list; of no others anything is kept."""

    def __init__(self) -> None:
        self._samples: dict[str, _Sample] = {}
        self._rates: dict[str, Rate] = {}
        self._histories: dict[str, deque[float | None]] = {}

    def update(self, sessions: Sequence[Json]) -> None:
        samples, rates, histories = self._samples, self._rates, self._histories
        self._samples, self._rates, self._histories = {}, {}, {}
        for session in sessions:
            token, new = session["token"], _sample(session)
            old, rate = samples.get(token), rates.get(token)
            history = self._histories[token] = histories.get(token) or deque(maxlen=HISTORY)
            self._samples[token] = new
            if old and new.time <= old.time:  # the service keeps what it says for a second
                self._samples[token] = old
            elif old:
                rate = _rate(old, new)
                history.append(rate.both)
            if rate:
                self._rates[token] = rate

    def rate(self, token: str) -> Rate | None:
        """None until the session was listed twice."""
        return self._rates.get(token)

    def history(self, token: str) -> Sequence[float | None]:
        """Sent and received together, newest last."""
        return list(self._histories.get(token, ()))


def _sample(session: Json) -> _Sample:
    return _Sample(
        datetime.fromisoformat(session["sampled_at"]).timestamp(),
        {
            s["id"]: None if s["bytes_sent"] is None else (s["bytes_sent"], s["bytes_received"])
            for s in session["subflows"]
        },
    )


def _rate(old: _Sample, new: _Sample) -> Rate:
    """A subflow that was not there before started with nothing; one that has ended counts no more."""
    took = new.time - old.time
    sent = received = 0
    for id_, now in new.subflows.items():
        then = old.subflows.get(id_, (0, 0))
        if now and then:
            sent += max(0, now[0] - then[0])
            received += max(0, now[1] - then[1])
    return Rate(sent / took, received / took)
