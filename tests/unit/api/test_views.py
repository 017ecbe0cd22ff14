# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pm.api.closed_views import rfc3339
from pm.api.inputs import parse_token
from pm.api.views import policy_view, session_detail_view, session_view
from pm.model import Origin, token_text
from pm.sessions.history import HistoryEvent
from tests.unit.api.plane import CGROUP, REST, SYNC, Figures, make_session
from tests.unit.builders import at


def test_session_shows_kernel_figures_in_si_units() -> None:
    """RTT is in seconds, times are RFC 3339 in UTC, bytes are integers."""
    view = session_view(make_session(1), CGROUP, None, [Figures(), Figures(rtt_us=250)], at(1.7e9 + 11))
    assert view["token"] == "0xa0000001"
    assert view["created_at"] == "2023-11-14T22:13:21.000000Z"
    assert view["age_s"] == 10.0
    assert [s["rtt_s"] for s in view["subflows"]] == [0.0015, 0.00025]
    assert view["subflows"][0]["bytes_received"] == 2000


def test_session_shows_every_remote_address_with_its_id() -> None:
    """The initial remote address has id 0, announced ones the peer's id."""
    view = session_view(make_session(1), CGROUP, None, [], at(1.7e9))
    assert [(r["ip"], r["address_id"]) for r in view["remote_addresses"]] == [
        ("10.0.1.2", 0),
        ("10.0.2.2", 2),
    ]


def test_session_shows_what_could_not_be_opened() -> None:
    """A pair whose opening failed appears with the reason and the number of failures."""
    (failed,) = session_view(make_session(1), None, None, [], at(1.7e9))["failed"]
    assert (failed["local"], failed["failures"]) == ("10.0.3.1", 2)
    assert failed["reason"].startswith("ENETUNREACH")


def test_subflow_without_figures_has_nulls() -> None:
    """A subflow whose socket is gone, or that came after the figures were read, shows null, never 0."""
    view = session_view(make_session(1), CGROUP, None, [None], at(1.7e9))
    assert [(s["rtt_s"], s["bytes_sent"]) for s in view["subflows"]] == [(None, None), (None, None)]


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        (Origin.INITIAL, "initial subflow (application)"),
        (Origin.POLICY, "fullmesh: 10.0.2.1 × 10.0.2.2"),
        (Origin.PEER, "opened by the peer"),
        (Origin.OPERATOR, "by hand"),
    ],
)
def test_subflow_tells_why_it_was_opened(origin: Origin, reason: str) -> None:
    """The reason follows from who wanted the subflow, and from the path manager."""
    session = make_session(1)
    session.subflows[1].origin = origin
    subflow = session_view(session, CGROUP, None, [], at(1.7e9))["subflows"][1]
    assert (subflow["origin"], subflow["reason"]) == (origin.name.lower(), reason)


def test_detail_adds_the_history() -> None:
    """One session by itself has its events, newest last, with details as text."""
    session = make_session(1)
    session.history.add(at(1.7e9), HistoryEvent.SUBFLOW_OPENING, session.initial_pair)
    events = session_detail_view(session, CGROUP, None, [], [], [], at(1.7e9))["events"]
    assert [e["event"] for e in events] == ["created", "established", "subflow_opening"]
    assert events[-1]["detail"] == "10.0.1.1 × 10.0.1.2"


def test_policy_shows_parameters_and_its_own_cgroups() -> None:
    """Durations are seconds, prefixes text, and only cgroups of this policy are listed."""
    view = policy_view(SYNC, {CGROUP: "sync", "/": "rest"}, 3)
    assert view["path_manager"] == {
        "name": "fullmesh",
        "parameters": {"subflows_per_pair": 1, "max_subflows": 8},
    }
    assert view["start"] == {"after_s": 0.5, "after_bytes": 65536}
    assert view["accept"] == {"max_subflows": 8, "from": ["10.0.0.0/8"]}
    assert (view["cgroups"], view["sessions"]) == ([CGROUP], 3)
    assert policy_view(REST, {}, 0)["path_manager"] == {"name": "none", "parameters": {}}
    json.dumps(view)


@given(st.integers(0, 2**32 - 1))
def test_token_is_read_as_it_is_written(token: int) -> None:
    """Text of a token parses to it, with and without 0x; so does decimal that is not eight digits long."""
    assert parse_token(token_text(token)) == token
    assert parse_token(token_text(token)[2:]) == token
    if len(str(token)) != 8:
        assert parse_token(str(token)) == token


@pytest.mark.parametrize(
    "text", ["", "x", "0x", "-1", "1_0", " 1", "0x100000000", "99999999999", "١٢", "9" * 5000]
)
def test_what_is_no_token_is_none(text: str) -> None:
    """Signs, blanks, underscores, foreign digits and what exceeds 32 bits name no session."""
    assert parse_token(text) is None


def test_times_have_a_fixed_width() -> None:
    """A whole second has its fraction too, so that times sort as text."""
    assert rfc3339(1.7e9) == "2023-11-14T22:13:20.000000Z"
