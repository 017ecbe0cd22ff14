# SPDX-License-Identifier: Apache-2.0
"""Full collections: rare, and of what is new."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from pm import garbage


class Cycle:
    """Lives until the collector finds it."""

    alive = 0

    def __init__(self) -> None:
        self.itself = self
        Cycle.alive += 1

    def __del__(self) -> None:
        Cycle.alive -= 1


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """As it was, afterwards."""
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    yield
    gc.callbacks[:] = callbacks
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.collect()


def test_what_survives_a_full_collection_is_not_looked_at_again() -> None:
    """The next one has only what is new to look at."""
    garbage.collect_seldom()
    sessions = [[number] for number in range(10_000)]
    gc.collect()
    assert gc.get_freeze_count() > len(sessions)
    assert len(gc.get_objects(generation=2)) < 1000
    before = gc.get_freeze_count()
    del sessions  # in no cycle: they are freed at once, frozen or not
    assert gc.get_freeze_count() < before - 9_000


def test_what_becomes_garbage_later_is_found() -> None:
    """In one of ten full collections at the latest."""
    garbage.collect_seldom()
    kept = Cycle()
    gc.collect()  # which it survives
    del kept
    assert Cycle.alive == 1
    for _ in range(garbage.EVERYTHING_EVERY):
        gc.collect()
    assert Cycle.alive == 0


def test_new_sessions_start_no_full_collection() -> None:
    """Nor do young ones take anything out: a cycle of a request is found by the next of these."""
    garbage.collect_seldom()
    full = []
    gc.callbacks.append(lambda phase, info: full.append(phase) if info["generation"] == 2 else None)
    sessions = [[[number], {number: [number]}] for number in range(100_000)]
    assert not full
    Cycle()
    gc.collect(1)
    assert Cycle.alive == 0
    assert len(sessions) == 100_000
