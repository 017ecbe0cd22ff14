# SPDX-License-Identifier: Apache-2.0
"""The benchmark's observer tells the truth; its peers are proven by `make bench` itself."""

from __future__ import annotations

from tests.bench.join import Observer, Track, start_kernel
from tests.lab.lab import Lab


def test_observer_times_every_join(lab: Lab) -> None:
    """One positive delay for each connection that is joined, however many subflows follow."""
    start_kernel(lab)
    lab.server()
    track = Track(lab)
    track.warm_up()
    delays = track.round(connections=20)
    assert len(delays) == 20
    assert all(0 < delay < 5 for delay in delays)


def test_observer_sees_no_join_where_there_is_none(lab: Lab) -> None:
    """Connections without a second subflow give no delay."""
    lab.server()
    observer = Observer(lab)
    lab.client().open(10)
    assert observer.delays() == []
