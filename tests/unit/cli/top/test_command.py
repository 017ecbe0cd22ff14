# SPDX-License-Identifier: Apache-2.0
"""When one snapshot has all the rates that it will have."""

from __future__ import annotations

from typing import Any

import pytest

from pm.cli.top.collector import InterfaceRow, SessionRow
from pm.cli.top.command import is_complete
from pm.cli.top.session_rates import Rate
from tests.unit.cli.top.documents import interface, session, snapshot

UNKNOWN: dict[str, Any] = {"sent_per_second": None, "received_per_second": None}


@pytest.mark.parametrize(
    ("interfaces", "complete"),
    [
        ([interface()], True),
        ([interface(**UNKNOWN)], False),
        ([interface(), interface("eth1", subflows=0, **UNKNOWN)], True),  # no subflow ever used it
        ([interface("eth1", subflows=0, **UNKNOWN)], True),
        ([interface(), interface("eth1", subflows=1, **UNKNOWN)], True),  # one that is being opened
        ([], True),
    ],
)
def test_interfaces_have_rates_where_they_have_subflows(interfaces: list[Any], complete: bool) -> None:
    """One sample has all interfaces: where one has a rate, no other will come."""
    shown = snapshot()._replace(interfaces=[InterfaceRow(i, []) for i in interfaces], sessions=())
    assert is_complete(shown) == complete


def test_each_session_has_a_rate() -> None:
    rows = [SessionRow(session(), Rate(0.0, 0.0), []), SessionRow(session("0x2"), None, [])]
    assert not is_complete(snapshot()._replace(sessions=rows))
    assert is_complete(snapshot()._replace(sessions=rows[:1]))
