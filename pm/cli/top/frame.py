# SPDX-License-Identifier: Apache-2.0
"""A whole screen of ``top``: what is on it, for a size and a state. Pure."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from rich.text import Text

from pm.cli.top.collector import Snapshot
from pm.cli.top.columns import Look
from pm.cli.top.feed import silence
from pm.cli.top.glyphs import Glyphs
from pm.cli.top.live_tables import rate_text, view_lines, view_rows
from pm.cli.top.session_view import session_lines, wrapped
from pm.cli.top.state import Screenful, State
from pm.cli.top.views_of_top import VIEWS, View

HELP = (
    "1 2 3       interfaces, policies, sessions",
    "Tab         the next of them",
    "Up Down     move; also j k, Page Up, Page Down, Home, End; of sessions to the first 1000",
    "Enter       of a policy: its sessions; of a session: its subflows and history",
    "Esc         back",
    "s           sort by something else",
    "r           reverse the order",
    "/           filter by a text; Enter takes it, Esc leaves it as it was",
    "p           pause, and go on",
    "Ctrl-L      draw again",
    "q           quit",
    "",
    "SENT, RECEIVED: bytes in a second, of MPTCP subflows",
    "SHARE: of all of these bytes",
    "HISTORY: both ways together, a second in each column, the newest at the right",
    "",
    "Any key goes back.",
)
HELP_INDENT = " " * 12
HINTS = ("q quit", "h help", "Tab view", "s sort", "/ filter", "Enter open", "r reverse", "p pause")
HINTS_OF_SESSION = ("q quit", "h help", "Esc back", "p pause")
# The title, the views, a message, the titles of a table; and the line of keys.
LINES_AROUND = 5
TALL_ENOUGH = 7


class Shown(NamedTuple):
    """What there is to show. ``silent_s``: how long the service has not answered."""

    snapshot: Snapshot
    error: str = ""
    silent_s: float = 0.0


def rows_on_screen(size: os.terminal_size) -> int:
    return max(1, size.lines - LINES_AROUND)


def frame(shown: Shown, state: State, size: os.terminal_size, glyphs: Glyphs) -> tuple[list[Text], Screenful]:
    """The lines, and what a key then means."""
    width, snapshot = size.columns, shown.snapshot
    top = [
        _header(snapshot, width, glyphs),
        _views(state, width, glyphs),
        _message(shown, state, width, glyphs),
    ]
    page = rows_on_screen(size)
    body: list[Text] = []
    seen = Screenful((), page)
    position = ""
    is_shown = snapshot.request.shows == (state.view, state.policy, state.opened)
    if state.helping:
        body = [line for text in HELP for line in wrapped(text, width, HELP_INDENT)]
    elif is_shown and state.opened:
        lines = session_lines(snapshot, Look(glyphs, width))
        seen = Screenful([str(number) for number in range(len(lines))], page + 1)
        at = max(0, min(state.offset, len(lines) - seen.height))
        body = lines[at : at + seen.height]
        position = _position(at, len(body), len(lines))
    elif is_shown:
        body, seen, position = _table(snapshot, state, width, page, glyphs)
    foot = _foot(state, position, width, glyphs)
    for line in (*top, *body, foot):
        line.truncate(width)
    if size.lines < TALL_ENOUGH:  # what it is about, and nothing around it
        return [*top[:1], *body][: size.lines], seen
    body = body[: size.lines - len(top) - 1]
    blank = [Text()] * (size.lines - len(top) - 1 - len(body))
    return [*top, *body, *blank, foot], seen


def _table(
    snapshot: Snapshot, state: State, width: int, page: int, glyphs: Glyphs
) -> tuple[list[Text], Screenful, str]:
    chosen = state.chosen
    rows = view_rows(snapshot, state.view, chosen.sort, chosen.reverse, chosen.text)
    if not rows:
        what = f"no {state.view} with {chosen.text!r}" if chosen.text else f"no {state.view}"
        of_policy = f" of policy {state.policy}" if state.policy else ""
        return [Text(glyphs.cut(glyphs.clean(what + of_policy), width), "dim")], Screenful((), page), ""
    selected = min(chosen.selected, len(rows) - 1)
    first = selected // page * page
    on_screen = rows[first : first + page]
    look = Look(glyphs, width, chosen.sort, selected - first)
    lines = view_lines(state.view, [row for _, row in on_screen], look)
    whole, more = len(rows), ""
    if state.view is View.SESSIONS and (chosen.text or state.policy):
        more = " or more" if whole >= snapshot.request.limit else ""
    elif state.view is View.INTERFACES and not chosen.text:
        whole += snapshot.left_out
    elif state.view is View.SESSIONS:
        whole = max(whole, snapshot.status["sessions"])
    position = _position(first, len(on_screen), whole)
    return lines, Screenful([key for key, _ in rows], page), f"{position}{more}" if position else ""


def _position(first: int, count: int, whole: int) -> str:
    return f"{first + 1}-{first + count} of {whole}" if count < whole else ""


def _header(snapshot: Snapshot, width: int, glyphs: Glyphs) -> Text:
    status = snapshot.status
    sampled = snapshot.sampled
    part = f" ({sampled} sampled)" if 0 < sampled < status["sessions"] else ""
    ready = "ready" if status["ready"] else "not ready"
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.time))
    parts = [
        (f"{status['sessions']} sessions{part}", ""),
        (f"sent {rate_text(snapshot.rate.sent)}", ""),
        (f"received {rate_text(snapshot.rate.received)}", ""),
        (clock, ""),
        (ready, "green" if status["ready"] else "red"),
        (status["datapath"], "dim"),
        (status["version"], "dim"),
    ]
    return _joined([("mptcp-pm", "bold"), *parts], width, glyphs)


def _joined(parts: Sequence[tuple[str, str]], width: int, glyphs: Glyphs) -> Text:
    """As many of the parts as fit."""
    line = Text(no_wrap=True, end="")
    for text, style in parts:
        shown = glyphs.clean(text)
        gap = "  " if line else ""
        if line.cell_len + len(gap) + Text(shown).cell_len > width:
            break
        line.append(gap).append(shown, style)
    return line


def _views(state: State, width: int, glyphs: Glyphs) -> Text:
    parts = [
        (f"{n}{'>' if view is state.view else ' '}{view}", "bold underline" if view is state.view else "")
        for n, view in enumerate(VIEWS, 1)
    ]
    if state.opened:
        parts.append((f"session {state.opened}", "bold"))
    else:
        chosen = state.chosen
        if state.policy:
            parts.append((f"policy {state.policy}", "bold"))
        if chosen.text:
            parts.append((f"filter {chosen.text!r}", "bold"))
        parts.append((f"by {chosen.sort}{', reversed' if chosen.reverse else ''}", "dim"))
    return _joined(parts, width, glyphs)


def _message(shown: Shown, state: State, width: int, glyphs: Glyphs) -> Text:
    """That it is paused; or what is wrong: no answer, a service that is not ready, a bad file."""
    text, snapshot = "", shown.snapshot
    if state.paused:
        return Text(glyphs.cut("paused: p goes on", width), "bold yellow")
    if shown.error:
        text = f"trying again: {shown.error}"
    elif shown.silent_s:
        text = silence(shown.silent_s)
    elif snapshot.status["reasons"]:
        text = "; ".join(snapshot.status["reasons"])
    elif not snapshot.status["config"]["last_reload"]["ok"]:
        text = "the configuration file is bad: the last good one stays in force (`mptcp-pm status`)"
    return Text(glyphs.cut(glyphs.clean(text), width), "bold red")


def _foot(state: State, position: str, width: int, glyphs: Glyphs) -> Text:
    if state.typed is not None:
        return Text(glyphs.cut(glyphs.clean(f"filter: {state.typed}_"), width, left=True), "bold")
    hints = HINTS_OF_SESSION if state.opened else HINTS
    line = _joined([(hint, "dim") for hint in hints], width - len(position) - 2 * bool(position), glyphs)
    if position:
        line.pad_right(width - line.cell_len - len(position))
        line.append(position)
    return line


def plain_lines(snapshots: Sequence[Snapshot], width: int | None, glyphs: Glyphs) -> list[Text]:
    """The views of these snapshots one below the other, once; ``width`` None for a pipe."""
    lines = [_header(snapshots[0], width or 200, glyphs)]
    for snapshot in snapshots:
        view = snapshot.request.view
        chosen = replace(State(view=view).chosen, text=snapshot.request.text)
        rows = view_rows(snapshot, view, chosen.sort, chosen.reverse, chosen.text)
        lines += [Text(), Text(view.upper(), "bold")]
        lines += (
            view_lines(view, [row for _, row in rows], Look(glyphs, width)) if rows else [Text("none", "dim")]
        )
    return lines
