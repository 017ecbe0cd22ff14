# SPDX-License-Identifier: Apache-2.0
"""Code of third parties gets the thread back after a while, and only then."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from pm.sessions.time_limit import TimeLimit, TookTooLong


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, before)


def never_return() -> None:
    while True:
        try:
            while True:
                pass
        except Exception:
            continue


def test_what_never_returns_is_ended() -> None:
    """Also where it catches every Exception."""
    with pytest.raises(TookTooLong, match=r"took longer than 0.01 s"), TimeLimit(0.01):
        never_return()


def test_what_returns_is_left_alone() -> None:
    """No alarm is left behind, and one that comes late does nothing."""
    limit = TimeLimit(30.0)
    with limit:
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    signal.raise_signal(signal.SIGALRM)
