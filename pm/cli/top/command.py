# SPDX-License-Identifier: Apache-2.0
"""``mptcp-pm top``: live on a terminal, one plain snapshot elsewhere."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from rich.console import Console

from pm.cli.client import Client, Target
from pm.cli.tables import console, is_screen
from pm.cli.top.collector import Collector, Request, Snapshot
from pm.cli.top.feed import Feed
from pm.cli.top.frame import Shown, frame, plain_lines, rows_on_screen
from pm.cli.top.glyphs import Glyphs, glyphs_for
from pm.cli.top.session_rates import Rate
from pm.cli.top.state import ROWS_MAX, State
from pm.cli.top.terminal import Terminal
from pm.cli.top.views_of_top import SORTS, VIEWS, View
from pm.errors import PmError

REFRESH_S = 1.0
PLAIN_LIMIT = 20
# Rates need two samples.
SAMPLE_S = 0.5
SAMPLES_MAX = 10


def top(options: argparse.Namespace) -> int:
    state = _chosen(options)
    out = console()
    glyphs = glyphs_for(out.encoding, os.environ)
    with closing(Client(Target(options.socket, options.url, options.token_file))) as client:
        if not (options.once or options.json) and is_screen(out):
            return _live(client, out, glyphs, state)
        snapshots = _samples(Collector(client), options, state)
    return _print_json(snapshots) if options.json else _print(snapshots, out, glyphs)


def _chosen(options: argparse.Namespace) -> State:
    """Raises PmError for an order that the view does not have."""
    state = State(view=View(options.view or View.INTERFACES))
    sort = options.sort or SORTS[state.view][0]
    if sort not in SORTS[state.view]:
        known = ", ".join(SORTS[state.view])
        raise PmError(f"{state.view} have no order by {sort}", f"--sort is one of {known}")
    chosen = replace(state.chosen, sort=sort, reverse=options.reverse, text=options.filter or "")
    return replace(state, of_view={**state.of_view, state.view: chosen})


def _request(state: State, limit: int) -> Request:
    chosen = state.chosen
    return Request(state.view, chosen.sort, chosen.reverse, chosen.text, state.policy, state.opened, limit)


def _live(client: Client, out: Console, glyphs: Glyphs, state: State) -> int:
    collector = Collector(client)
    request = _request(state, PLAIN_LIMIT)
    first = collector.collect(request)  # what is wrong from the start ends the command
    with Terminal(out) as terminal, Feed(client, collector.collect, request, first, REFRESH_S) as feed:
        shown = Shown(first)
        while not (state.ended or terminal.interrupted):
            size = terminal.size
            latest = Shown(feed.latest(), feed.error, feed.silent_s)
            shown = shown if state.paused else latest
            terminal.draw(frame(shown, state, size, glyphs)[0])
            try:
                keys = terminal.keys(REFRESH_S, feed.fileno())
            except EOFError:
                return 0
            for key in keys:
                state = state.press(key, frame(shown, state, size, glyphs)[1])
            feed.ask(_request(state, _rows_wanted(state, rows_on_screen(size))))
    return 0


def _rows_wanted(state: State, page: int) -> int:
    """Those up to the end of the page that is shown, and the next page."""
    return min(ROWS_MAX, (state.chosen.selected // page + 2) * page)


def _print(snapshots: Sequence[Snapshot], out: Console, glyphs: Glyphs) -> int:
    for line in plain_lines(snapshots, out.width if is_screen(out) else None, glyphs):
        line.rstrip()
        out.print(line, soft_wrap=True)
    return 0


def _samples(collector: Collector, options: argparse.Namespace, state: State) -> list[Snapshot]:
    """Of the view that was asked for, or of each; with rates, where they come."""
    states = [state] if options.view else [replace(state, view=view) for view in VIEWS]
    requests = [_request(each, options.limit or PLAIN_LIMIT) for each in states]
    for _ in range(SAMPLES_MAX):
        snapshots = [collector.collect(request) for request in requests]
        if all(map(is_complete, snapshots)):
            break
        time.sleep(SAMPLE_S)
    return snapshots


def is_complete(snapshot: Snapshot) -> bool:
    """Whether all rates are known that two samples give: of interfaces, those that have subflows."""
    used = [row.interface for row in snapshot.interfaces if row.interface["subflows"]]
    sampled = not used or any(i["sent_per_second"] is not None for i in used)
    return sampled and all(row.rate for row in snapshot.sessions)


def _print_json(snapshots: Sequence[Snapshot]) -> int:
    """What REST has of each view, with the rates."""
    document: dict[str, object] = {}
    for snapshot in snapshots:
        match snapshot.request.view:
            case View.INTERFACES:
                document["interfaces"] = [row.interface for row in snapshot.interfaces]
            case View.POLICIES:
                document["policies"] = [{**row.policy, **_rate_keys(row.rate)} for row in snapshot.policies]
            case View.SESSIONS:
                document["sessions"] = [{**row.session, **_rate_keys(row.rate)} for row in snapshot.sessions]
    print(json.dumps(document, indent=2, ensure_ascii=False), flush=True)
    return 0


def _rate_keys(rate: Rate | None) -> dict[str, float | None]:
    return {
        "sent_per_second": rate and rate.sent,
        "received_per_second": rate and rate.received,
    }
