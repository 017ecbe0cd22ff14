# SPDX-License-Identifier: Apache-2.0
"""Token buckets, each of which is one number (the generic cell rate algorithm). Pure.

``full_at`` is the time on the monotonic clock at which a bucket is full again; what lies in the past, such
as 0.0, is a full one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

SLACK = 1e-6  # of a token: sums of floats are not exact


class Rate(NamedTuple):
    """``burst`` is what a full bucket has."""

    per_second: float
    burst: int

    def room(self, full_at: float, now: float) -> int:
        """How many tokens the bucket has."""
        return max(0, math.floor(self.burst - (max(full_at, now) - now) * self.per_second + SLACK))

    def take(self, full_at: float, now: float, tokens: int) -> float:
        """``full_at`` after taking so many, whether it had them or not."""
        return max(full_at, now) + tokens / self.per_second

    def next_at(self, full_at: float) -> float:
        """When the bucket has a token; in the past where it has one now."""
        return full_at - (self.burst - 1) / self.per_second
