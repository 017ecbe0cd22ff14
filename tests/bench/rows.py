# SPDX-License-Identifier: Apache-2.0
"""One line of the benchmark's table."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


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
