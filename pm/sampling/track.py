# SPDX-License-Identifier: Apache-2.0
"""What one thing had in each of the last samples."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

HISTORY = 180  # samples: three minutes
SPARE = 30
UNKNOWN = math.nan


class Track:
    """Columns of figures by the number of the sample. The last ``HISTORY`` samples, and some before."""

    __slots__ = ("_columns", "_first")

    def __init__(self, width: int) -> None:
        self._first = 0
        self._columns = tuple(array("f") for _ in range(width))

    def put(self, number: int, values: Sequence[float]) -> None:
        """The figures of sample ``number``, higher than the last; those between are unknown."""
        length = len(self._columns[0])
        if not length or number - self._first - length > HISTORY:
            self._first, length = number, 0
            for column in self._columns:
                del column[:]
        gap = [UNKNOWN] * (number - self._first - length)
        for column, value in zip(self._columns, values, strict=True):
            column.extend(gap)
            column.append(value)
        # Not each time: the rest of a column moves.
        if (excess := len(self._columns[0]) - HISTORY) > SPARE:
            for column in self._columns:
                del column[:excess]
            self._first += excess

    def get(self, column: int, number: int) -> float:
        """UNKNOWN outside of what was put."""
        at = number - self._first
        found = self._columns[column]
        return found[at] if 0 <= at < len(found) else UNKNOWN

    def window(self, column: int, first: int, last: int) -> list[float]:
        """Of samples ``first`` to ``last``, both included."""
        return [self.get(column, number) for number in range(first, last + 1)]
