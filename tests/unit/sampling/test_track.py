# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pm.sampling.track import HISTORY, SPARE, Track


@given(st.lists(st.integers(1, 2 * HISTORY), max_size=40), st.integers(0, 10_000))
def test_a_track_remembers_the_last_samples(steps: list[int], start: int) -> None:
    """Each figure is found under its number, those between are unknown, and memory is bounded."""
    track, put = Track(2), {}
    number = start
    for step in steps:
        number += step
        track.put(number, (number % 97, -1.0))
        put[number] = float(number % 97)
    for found, wanted in zip(
        track.window(0, number - HISTORY + 1, number),
        (put.get(n, math.nan) for n in range(number - HISTORY + 1, number + 1)),
        strict=True,
    ):
        assert found == wanted or (math.isnan(found) and math.isnan(wanted))
    assert len(track._columns[1]) <= HISTORY + SPARE
    assert math.isnan(track.get(0, number + 1))
