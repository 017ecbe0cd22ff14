# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

from pm.cli.top.session_rates import HISTORY, SessionRates
from tests.unit.cli.top.documents import session, subflow

Json = dict[str, Any]


def at(second: int, *carried: tuple[str, int | None, int | None], token: str = "0x1") -> Json:
    """A session with these subflows: id, bytes sent, bytes received."""
    subflows = [subflow(id_, bytes_sent=sent, bytes_received=received) for id_, sent, received in carried]
    return session(token, sampled_at=f"2026-11-26T12:00:{second:02}.000000Z", subflows=subflows)


def test_bytes_between_two_lists() -> None:
    """A new subflow started with nothing; one that has ended, or is not known, counts nothing."""
    rates = SessionRates()
    rates.update([at(0, ("a", 1000, 0), ("b", 5000, 5000), ("c", None, None))])
    assert rates.rate("0x1") is None
    rates.update([at(2, ("a", 3000, 400), ("c", 10**9, 0), ("d", 500, 100))])
    assert rates.rate("0x1") == (1250.0, 250.0)
    assert rates.history("0x1") == [1500.0]


def test_what_the_service_kept_is_no_new_list() -> None:
    """Within a second it says the same again: the rate stays."""
    rates = SessionRates()
    for second, sent in ((0, 0), (1, 1000), (1, 1000), (2, 3000)):
        rates.update([at(second, ("a", sent, 0))])
    assert rates.rate("0x1") == (2000.0, 0.0)
    assert rates.history("0x1") == [1000.0, 2000.0]


def test_a_reused_pair_of_ports_has_no_negative_rate() -> None:
    rates = SessionRates()
    rates.update([at(0, ("a", 1000, 1000))])
    rates.update([at(1, ("a", 10, 2000))])
    assert rates.rate("0x1") == (0.0, 1000.0)


def test_what_is_not_listed_is_forgotten() -> None:
    """And a history has an end."""
    rates = SessionRates()
    for second in range(2 * HISTORY):
        minute, rest = divmod(second, 60)
        seen = at(0, ("a", second, 0)) | {"sampled_at": f"2026-11-26T12:{minute:02}:{rest:02}Z"}
        rates.update([seen])
    assert len(rates.history("0x1")) == HISTORY
    rates.update([])
    assert (rates.rate("0x1"), rates.history("0x1")) == (None, [])


def test_a_clock_that_is_set_back() -> None:
    """The next list is the first of a new time: no old rate stays, and none is negative."""
    rates = SessionRates()
    for second, sent in ((58, 0), (59, 1000), (2, 5000)):
        rates.update([at(second, ("a", sent, 0))])
    assert rates.rate("0x1") is None
    rates.update([at(3, ("a", 5300, 0))])
    assert rates.rate("0x1") == (300.0, 0.0)
    assert rates.history("0x1") == [1000.0, 300.0]


def test_a_clock_that_is_set_forward() -> None:
    """More time than went by here: what was carried in it is not known."""
    here = iter((100.0, 101.0, 102.0, 103.0))
    rates = SessionRates(lambda: next(here))
    for second, sent in ((0, 0), (1, 1000), (50, 2000)):
        rates.update([at(second, ("a", sent, 0))])
    assert rates.rate("0x1") is None
    rates.update([at(51, ("a", 3000, 0))])
    assert rates.rate("0x1") == (1000.0, 0.0)
