# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pm.cli.top.state import FILTER_MAX, ROWS_MAX, Screenful, State
from pm.cli.top.typed_keys import Key
from pm.cli.top.views_of_top import SORTS, View

NAMES = [f"row{number}" for number in range(25)]


def pressed(*keys: str, state: State | None = None, names: Sequence[str] = NAMES) -> State:
    state = state or State()
    for key in keys:
        state = state.press(key, Screenful(names, 10))
    return state


def test_views() -> None:
    """By number, and by Tab in a ring."""
    assert pressed("3").view is View.SESSIONS
    assert pressed(Key.TAB).view is View.POLICIES
    assert pressed(Key.TAB, Key.TAB, Key.TAB).view is View.INTERFACES
    assert pressed(Key.BACK_TAB).view is View.SESSIONS


def test_orders_belong_to_a_view() -> None:
    state = pressed("s", "r", "2")
    assert (state.of_view[View.INTERFACES].sort, state.of_view[View.INTERFACES].reverse) == ("rtt", True)
    assert (state.chosen.sort, state.chosen.reverse) == ("rate", False)
    rounds = len(SORTS[View.POLICIES])
    assert pressed(*"s" * rounds, state=state).chosen.sort == "rate"


@pytest.mark.parametrize(
    ("keys", "selected"),
    [
        ([Key.DOWN, "j", Key.DOWN, "k"], 2),
        ([Key.UP], 0),
        ([Key.PAGE_DOWN], 10),
        ([Key.PAGE_DOWN] * 9, 24),
        ([Key.END], 24),
        (["G", Key.PAGE_UP, "g"], 0),
    ],
)
def test_the_selection_stays_within_the_rows(keys: list[str], selected: int) -> None:
    assert pressed(*keys).chosen.selected == selected


def test_a_selection_beyond_rows_that_have_gone() -> None:
    """Is that of the last row."""
    state = pressed(Key.END)
    assert pressed(Key.UP, state=state, names=NAMES[:3]).chosen.selected == 1
    assert pressed("3", Key.END, Key.ENTER, names=NAMES[:3]).opened == "row2"


def test_the_end_of_sessions_is_not_the_end_of_those_that_are_there_already() -> None:
    """Only two pages were fetched: End asks for all that the service gives; a step back is one from there."""
    assert pressed("3", Key.END).chosen.selected == ROWS_MAX - 1
    assert pressed("3", "G", Key.UP).chosen.selected == 23
    assert pressed("3", "G", "g").chosen.selected == 0


def test_a_filter_is_typed() -> None:
    """Keys with a meaning are letters of it; Esc leaves the one before."""
    state = pressed("/", *"eqh", Key.BACKSPACE, "0", Key.ENTER)
    assert (state.chosen.text, state.ended, state.helping, state.typed) == ("eq0", False, False, None)
    assert pressed("/", "x", Key.ESCAPE, state=state).chosen.text == "eq0"
    assert pressed("/", Key.CLEAR_LINE, Key.ENTER, state=state).chosen.text == ""
    assert pressed(Key.ESCAPE, state=state).chosen.text == ""
    assert len(pressed("/", *"x" * 1000, Key.ENTER).chosen.text) == FILTER_MAX


def test_a_policy_leads_to_its_sessions_and_these_to_one() -> None:
    """Esc goes the same way back."""
    state = pressed("2", Key.DOWN, Key.ENTER)
    assert (state.view, state.policy) == (View.SESSIONS, "row1")
    state = pressed(Key.ENTER, state=state)
    assert state.opened == "row0"
    state = pressed(Key.ESCAPE, state=state)
    assert (state.opened, state.view, state.policy) == (None, View.SESSIONS, "row1")
    state = pressed(Key.ESCAPE, state=state)
    assert (state.view, state.policy, state.chosen.selected) == (View.POLICIES, None, 1)


def test_a_history_scrolls_to_its_end() -> None:
    opened = pressed("3", Key.ENTER)
    assert pressed(Key.END, state=opened).offset == 15
    assert pressed(Key.PAGE_DOWN, Key.UP, state=opened).offset == 9


def test_help_and_pause() -> None:
    """Any key leaves the help, and does nothing else; `q` ends."""
    state = pressed("h")
    assert state.helping
    assert pressed("3", state=state) == State()
    assert pressed("q", state=state).ended
    assert pressed("p").paused
    assert not pressed("p", " ").paused


@pytest.mark.parametrize("keys", [["s"], ["r"], ["3"], [Key.TAB], ["/", "x", Key.ENTER]])
def test_who_asks_for_something_else_does_not_pause(keys: list[str]) -> None:
    assert not pressed("p", *keys).paused
    assert pressed("p", Key.DOWN, "h", "x").paused


@given(st.lists(st.sampled_from([*Key, *"123hprsqjkgG/ ?xé"]), max_size=40), st.integers(0, 30))
def test_any_keys_give_a_state(keys: list[str], rows: int) -> None:
    """With any number of rows, none among them."""
    state = pressed(*keys, names=NAMES[:rows])
    assert state.chosen.selected >= 0
    assert state.chosen.sort in SORTS[state.view]
    assert state.opened is None or state.opened in NAMES
