# SPDX-License-Identifier: Apache-2.0
"""What is noted comes back from JSON, and what somebody else wrote there does no harm."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pm.sessions.session_notes import (
    denied_sessions,
    name_of,
    read_address_ids,
    read_addresses,
    read_denied,
)
from tests.unit.builders import session

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_denied_sessions_come_back() -> None:
    """By token and initial 4-tuple, those with the C flag only."""
    denied, other = session(deny_join_id0=True), session("10.0.2.1")
    found = read_denied(json.loads(json.dumps(denied_sessions([denied, other]))))
    assert name_of(denied) in found
    assert name_of(other) not in found


def test_ids_come_back_each_once() -> None:
    """An id is one byte, and never 0; two addresses cannot have the same one."""
    assert read_address_ids({"10.0.0.1": 1, "10.0.0.2": 255}) == {"10.0.0.1": 1, "10.0.0.2": 255}
    assert read_address_ids({"a": 0, "b": 256, "c": "1", "d": True, "e": 1.0}) == {}
    assert list(read_address_ids({"a": 7, "b": 7}).values()) == [7]


@given(anything)
def test_whatever_is_in_the_file(found: Any) -> None:
    """Nothing raises, and what comes out has the right form."""
    assert all(1 <= i <= 255 for i in read_address_ids(found).values())
    assert all(isinstance(ip, str) for ip in read_addresses(found))
    assert all(len(name) == 5 for name in read_denied(found))
