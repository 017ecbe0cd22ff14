# SPDX-License-Identifier: Apache-2.0
"""One line of the benchmark's table."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median
from typing import NamedTuple


class Interval(NamedTuple):
    """A median, and the ends of the interval that holds the true one with 95 % probability (sign test)."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """With fewer than six values the interval, from the least to the most, holds it less often."""
        ordered, n = sorted(values), len(values)
        rank, tail = 0, 0.5**n
        while tail <= 0.025:
            rank += 1
            tail += comb(n, rank) * 0.5**n
        rank = max(rank - 1, 0)
        return cls(ordered[rank], median(ordered), ordered[n - 1 - rank])

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Row(NamedTuple):
    """A measured value, what it is compared with (None: nothing), and the limit of the ratio or value."""

    what: str
    unit: str
    ours: float
    peer: float | None
    ratio: float | None
    limit: float | None

    @classmethod
    def of(
        cls, what: str, unit: str, ours: Sequence[float], peer: Sequence[float], limit: float | None = None
    ) -> Row:
        """Medians of paired rounds; the ratio is the median of the rounds' own ratios."""
        ratio = median(a / b for a, b in zip(ours, peer, strict=True))
        return cls(what, unit, median(ours), median(peer), ratio, limit)

    @classmethod
    def value(cls, what: str, unit: str, ours: float, limit: float | None = None) -> Row:
        return cls(what, unit, ours, None, None, limit)

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return ""
        return "ok" if (self.ours if self.ratio is None else self.ratio) <= self.limit else "MISSED"
