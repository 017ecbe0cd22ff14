# SPDX-License-Identifier: Apache-2.0
"""What the user of ``top`` has chosen, and what each key changes in it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pm.cli.top.typed_keys import Key
from pm.cli.top.views_of_top import SORTS, VIEWS, View

FILTER_MAX = 100
ROWS_MAX = 1000  # sessions that the service lists on a page


@dataclass(frozen=True, slots=True)
class Chosen:
    """Of one view."""

    sort: str
    reverse: bool = False
    text: str = ""  # the filter
    selected: int = 0


@dataclass(frozen=True, slots=True)
class Screenful:
    """What was on the screen when a key was typed: the rows of the view, and how many are seen at once."""

    keys: Sequence[str] = ()
    height: int = 10


@dataclass(frozen=True, slots=True)
class State:
    view: View = View.INTERFACES
    of_view: dict[View, Chosen] = field(default_factory=lambda: {v: Chosen(SORTS[v][0]) for v in VIEWS})
    policy: str | None = None  # only sessions of this policy
    opened: str | None = None  # token of the session that is shown
    offset: int = 0  # of its history
    typed: str | None = None  # a filter that is being typed
    paused: bool = False
    helping: bool = False
    ended: bool = False

    @property
    def chosen(self) -> Chosen:
        return self.of_view[self.view]

    def press(self, key: str, seen: Screenful) -> State:
        """The state after this key. Who wants to see something else wants to see what comes."""
        after = self._pressed(key, seen)
        return replace(after, paused=False) if after._asked() != self._asked() else after

    def _asked(self) -> tuple[object, ...]:
        chosen = self.chosen
        return self.view, self.policy, self.opened, chosen.sort, chosen.reverse, chosen.text

    def _pressed(self, key: str, seen: Screenful) -> State:
        if self.typed is not None:
            return self._type(key, self.typed)
        if self.helping:
            return replace(self, helping=False, ended=key == "q")
        match key:
            case "q":
                return replace(self, ended=True)
            case "h" | "?":
                return replace(self, helping=True)
            case "p" | " ":
                return replace(self, paused=not self.paused)
            case "1" | "2" | "3":
                return self._show(VIEWS[int(key) - 1])
            case Key.TAB | Key.BACK_TAB:
                step = 1 if key == Key.TAB else -1
                return self._show(VIEWS[(VIEWS.index(self.view) + step) % len(VIEWS)])
        return self._in_session(key, seen) if self.opened else self._in_table(key, seen)

    def _show(self, view: View) -> State:
        return replace(self, view=view, opened=None, policy=None, offset=0)

    def _choose(self, **changes: object) -> State:
        chosen = replace(self.chosen, **changes)  # type: ignore[arg-type]
        return replace(self, of_view={**self.of_view, self.view: chosen})

    def _in_table(self, key: str, seen: Screenful) -> State:
        chosen, last = self.chosen, max(len(seen.keys) - 1, 0)
        sorts = SORTS[self.view]
        match key:
            case "s":
                return self._choose(sort=sorts[(sorts.index(chosen.sort) + 1) % len(sorts)], reverse=False)
            case "r":
                return self._choose(reverse=not chosen.reverse)
            case "/":
                return replace(self, typed=chosen.text)
            case Key.ESCAPE | Key.LEFT | Key.BACKSPACE if chosen.text:
                return self._choose(text="", selected=0)
            case Key.ESCAPE | Key.LEFT | Key.BACKSPACE if self.policy:
                return replace(self, view=View.POLICIES, policy=None)
            case Key.ENTER | Key.RIGHT:
                return self._open(seen)
        if key in (Key.END, "G") and self.view is View.SESSIONS:  # not all of them are there yet
            return self._choose(selected=ROWS_MAX - 1)
        selected = _moved(min(chosen.selected, last), key, seen.height, last)
        return self if selected is None else self._choose(selected=selected)

    def _open(self, seen: Screenful) -> State:
        if not seen.keys:
            return self
        key = seen.keys[min(self.chosen.selected, len(seen.keys) - 1)]
        if self.view is View.POLICIES:
            sessions = replace(self.of_view[View.SESSIONS], selected=0, text="")
            of_view = {**self.of_view, View.SESSIONS: sessions}
            return replace(self, view=View.SESSIONS, policy=key, of_view=of_view)
        return replace(self, opened=key, offset=0) if self.view is View.SESSIONS else self

    def _in_session(self, key: str, seen: Screenful) -> State:
        if key in (Key.ESCAPE, Key.LEFT, Key.BACKSPACE):
            return replace(self, opened=None, offset=0)
        # The end is where the last line is at the bottom: what draws it knows it.
        offset = _moved(self.offset, key, seen.height, max(len(seen.keys) - seen.height, 0))
        return self if offset is None else replace(self, offset=offset)

    def _type(self, key: str, typed: str) -> State:
        match key:
            case Key.ENTER:
                return replace(self, typed=None)._choose(text=typed, selected=0)
            case Key.ESCAPE:
                return replace(self, typed=None)
            case Key.BACKSPACE:
                return replace(self, typed=typed[:-1])
            case Key.CLEAR_LINE:
                return replace(self, typed="")
        return replace(self, typed=(typed + key)[:FILTER_MAX]) if len(key) == 1 else self


def _moved(at: int, key: str, page: int, last: int) -> int | None:
    """Where a key leads from ``at``; None where it leads nowhere."""
    match key:
        case Key.UP | "k":
            to = at - 1
        case Key.DOWN | "j":
            to = at + 1
        case Key.PAGE_UP:
            to = at - page
        case Key.PAGE_DOWN:
            to = at + page
        case Key.HOME | "g":
            to = 0
        case Key.END | "G":
            to = last
        case _:
            return None
    return max(0, min(to, last))
