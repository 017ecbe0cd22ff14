# SPDX-License-Identifier: Apache-2.0
"""What a path manager answers is checked: it may be anything."""

from __future__ import annotations

from typing import Any

import pytest

from pm.model import Origin, Pair, Want
from pm.path_managers.answers import as_it_is, problem_of
from tests.unit.builders import REMOTE, address, session, subflow

A, B = "10.0.1.1", "10.0.2.1"
GOOD = Pair(B, REMOTE, 5000)


class Disguised(str):
    """Text that lies about itself."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (None, "the answer is None, not a dict"),
        ([GOOD], "the answer is a value of type list, not a dict"),
        ({Pair(B, REMOTE, n): Want() for n in range(1, 300)}, "has 299 pairs, more than 256"),
        ({(B, REMOTE, 5000): Want()}, "a value of type tuple: is not a Pair"),
        ({GOOD: 2}, "2 is not a Want"),
        ({GOOD: (2, False)}, "a value of type tuple is not a Want"),
        ({GOOD: Want(0)}, "0 subflows: at least 1"),
        ({GOOD: Want(-3)}, "-3 subflows: at least 1"),
        ({GOOD: Want(True)}, "True subflows: at least 1"),
        ({GOOD: Want(1.5)}, "1.5 subflows: at least 1"),  # type: ignore[arg-type]
        ({GOOD: Want(1, None)}, "backup is None, not a bool"),  # type: ignore[arg-type]
        ({Pair(B, "example.com", 5000): Want()}, "'example.com' is not an IP address"),
        ({Pair(B, "010.0.9.1", 5000): Want()}, "'010.0.9.1' is not an IP address"),
        ({Pair(B, "a\0b", 5000): Want()}, "is not an IP address"),
        ({Pair(Disguised(B), REMOTE, 5000): Want()}, "a value of type Disguised is not an IP address"),
        ({Pair(B, "fd00::9", 5000): Want()}, "its addresses are of different families"),
        ({Pair("fd00::1", "fd00::9", 5000): Want()}, "socket is IPv4 and can have no IPv6 subflow"),
        ({Pair(B, REMOTE, 0): Want()}, "0 is not a port"),
        ({Pair(B, REMOTE, 99999999): Want()}, "99999999 is not a port"),
        ({Pair(B, REMOTE, "5000"): Want()}, "'5000' is not a port"),  # type: ignore[arg-type]
        ({Pair("192.0.2.1", REMOTE, 5000): Want()}, "192.0.2.1 is none of the usable local addresses"),
    ],
)
def test_nonsense_is_named(answer: Any, problem: str) -> None:
    """Each kind of nonsense has its words."""
    assert problem in problem_of(answer, session(), [address(A), address(B)])


def test_what_exists_is_not_wrong() -> None:
    """An initial address that the rules exclude, and one that is gone while its subflow is there."""
    s = session(subflows=[subflow(A, origin=Origin.INITIAL), subflow("10.0.7.7"), subflow(B)])
    answer = as_it_is(s)
    assert [pair.local for pair in answer] == [A, "10.0.7.7", B]
    assert problem_of(answer, s, [address(B)]) == ""


def test_peers_subflows_are_the_peers() -> None:
    """Nobody else wants them."""
    s = session(subflows=[subflow(A), subflow(B, origin=Origin.PEER), subflow(A, backup=True)])
    assert as_it_is(s) == {subflow(A).pair: Want(2, True)}
