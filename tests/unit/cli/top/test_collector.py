# SPDX-License-Identifier: Apache-2.0
"""What ``top`` asks the service, and what it makes of the answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, cast

import pytest

from pm.cli.client import Client
from pm.cli.top.collector import SERIES_MAX, Collector, Request, totals
from pm.cli.top.state import ROWS_MAX
from pm.cli.top.views_of_top import View
from pm.errors import PmError
from tests.unit.cli.top.documents import detail, interface, policy, session, status

Json = dict[str, Any]


def series(sent: list[float | None], received: list[float | None], **labels: str) -> Json:
    both = (("sent_per_second", sent), ("received_per_second", received), ("rtt", [0.5] * len(sent)))
    return {"series": [{"name": name, "labels": labels, "values": values} for name, values in both]}


class Service:
    """Answers like the service, and keeps what it was asked."""

    def __init__(self, interfaces: list[Json] | None = None, policies: list[Json] | None = None) -> None:
        self.asked: list[str] = []
        self.queries: list[Json] = []
        self.pid = 1
        self.interfaces = interfaces if interfaces is not None else [interface("eth0"), interface("")]
        self.policies = policies if policies is not None else [policy("sync")]
        self.ended = False

    def status(self) -> Json:
        return status(pid=self.pid, started_at="2026-11-26T12:00:00.0Z")

    def get(self, path: str, **query: Any) -> Json:
        self.asked.append(path)
        self.queries.append(query)
        if path == "/v1/interfaces":
            return {"interfaces": self.interfaces, "sampled_sessions": 2, "sessions": 3, "left_out": 0}
        if path == "/v1/policies":
            return {"policies": self.policies}
        if path == "/v1/sessions":
            return {"sessions": [session()], "next": None}
        if self.ended or path == "/v1/interfaces//series":
            raise PmError("no such thing")
        if path == "/v1/sessions/0x1":
            return detail()
        return series([1.0, 2.0], [None, 3.0], interface="eth0")


def collector(service: Service, seconds: Iterator[float] | None = None) -> Collector:
    """It asks once a second, or at these times."""
    times = seconds or itertools.count(100.0)
    return Collector(cast(Client, service), lambda: next(times))


def test_the_past_of_an_interface_is_asked_for_once() -> None:
    """Then each answer is one more second; another service starts again."""
    service = Service()
    made = collector(service)
    snapshots = [made.collect(Request()) for _ in range(3)]
    one = 12.8 * 2**20
    assert [list(s.interfaces[0].history) for s in snapshots] == [[1, 5], [1, 5, one], [1, 5, one, one]]
    assert service.asked.count("/v1/interfaces/eth0/series") == 1
    assert snapshots[0].interfaces[1].history == []
    assert (snapshots[0].rate.sent, snapshots[0].sampled) == (2 * 12.3 * 2**20, 2)
    service.pid = 2
    assert made.collect(Request()).interfaces[0].history == [1, 5]


def test_a_column_of_the_history_is_a_second() -> None:
    """Keys ask for more frames than one a second; seconds without an answer are blank."""
    service = Service()
    made = collector(service, iter((100.0, 100.1, 100.2, 101.2, 102.1, 106.0, 106.2)))
    one = 12.8 * 2**20
    assert [list(made.collect(Request()).interfaces[0].history) for _ in range(4)] == [
        [1, 5], [1, 5], [1, 5], [1, 5, one],
    ]  # fmt: skip
    after = [list(made.collect(Request()).interfaces[0].history) for _ in range(3)]
    assert after[0] == [1, 5, one, one]
    assert after[1] == after[2] == [1, 5, one, one, None, None, None, one]


def test_what_is_not_known_yet_is_no_second() -> None:
    service = Service([interface("eth0", sent_per_second=None, received_per_second=None)])
    made = collector(service)
    assert [made.collect(Request()).interfaces[0].history for _ in range(2)] == [[1, 5], [1, 5]]


def test_only_the_view_is_asked_for() -> None:
    """Of sessions what the service has sorted and filtered, a page at most."""
    service = Service()
    made = collector(service)
    made.collect(Request())
    assert "/v1/policies" not in service.asked
    assert "/v1/sessions" not in service.asked
    request = Request(View.SESSIONS, "bytes", True, "eth", "sync", limit=5000)
    assert [row.session["token"] for row in made.collect(request).sessions] == ["0xa0000001"]
    assert service.queries[-1] == {
        "sort": "bytes", "order": "ascending", "policy": "sync", "search": "eth", "limit": ROWS_MAX,
    }  # fmt: skip


def test_rates_of_policies() -> None:
    """The last of each interface; the history is of all together."""
    (row,) = collector(Service()).collect(Request(View.POLICIES)).policies
    assert row.rates == {"eth0": (2.0, 3.0)}
    assert (row.rate, row.history) == ((2.0, 3.0), [1.0, 5.0])


def test_many_policies_and_interfaces_are_not_all_asked_about() -> None:
    """However many there are, a frame has a bound."""
    service = Service([interface(f"eth{n}") for n in range(500)], [policy(f"policy{n}") for n in range(500)])
    snapshot = collector(service).collect(Request(View.POLICIES))
    assert len(service.asked) == 2 * SERIES_MAX + 2
    assert (len(snapshot.policies), len(snapshot.interfaces)) == (500, 500)


def test_policies_with_the_most_sessions_are_asked_about() -> None:
    """Also where they are the last of many in the file."""
    service = Service(policies=[policy(f"idle{n}", sessions=0) for n in range(500)] + [policy("busy")])
    rows = collector(service).collect(Request(View.POLICIES)).policies
    assert (rows[-1].policy["name"], rows[-1].rate) == ("busy", (2.0, 3.0))


def test_one_session_and_its_end() -> None:
    service = Service()
    request = Request(View.SESSIONS, opened="0x1")
    snapshot = collector(service).collect(request)
    assert snapshot.session == detail()
    assert snapshot.series is not None
    service.ended = True
    snapshot = collector(service).collect(request)
    assert (snapshot.session, snapshot.message) == (None, "0x1: no such thing")


@pytest.mark.parametrize(
    ("document", "sums"),
    [
        ({"series": []}, []),
        (series([], []), []),
        (series([None, 1.0], [None, None]), [None, 1.0]),
        ({"series": [*series([1.0], [2.0])["series"], *series([3.0], [4.0])["series"]]}, [10.0]),
    ],
)
def test_sums_of_series(document: Json, sums: list[float | None]) -> None:
    assert totals(document) == sums
