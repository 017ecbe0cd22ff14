# SPDX-License-Identifier: Apache-2.0
"""``sessions --watch``: the sessions once a second, on the whole screen or one list after the other."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.text import Text

from pm.cli.client import Client
from pm.cli.tables import sessions_list
from pm.cli.top.feed import Feed, silence
from pm.cli.top.glyphs import Glyphs, glyphs_for
from pm.cli.top.terminal import Terminal
from pm.errors import PmError

REFRESH_S = 1.0
MORE = "more than fit on this screen: `mptcp-pm top` has them all"
Sessions = list[dict[str, Any]]
Show = Callable[[Sessions], None]


def watch_on_screen(client: Client, out: Console, fetch: Callable[[int], Sessions], first: Sessions) -> int:
    """Until Ctrl-C or `q`. ``fetch`` gets the number of lines of the screen."""
    glyphs = glyphs_for(out.encoding, os.environ)
    with Terminal(out) as terminal, Feed(client, fetch, terminal.size.lines, first, REFRESH_S) as feed:
        while not terminal.interrupted:
            size = terminal.size
            found = feed.latest()
            what = f"trying again: {feed.error}" if feed.error else silence(feed.silent_s)
            lines = [] if feed.error else _lines(found, size.columns, out, glyphs)
            said = [] if not what else list(Text(glyphs.clean(what), "bold red").wrap(out, size.columns))
            terminal.draw(_screen([*said, *lines], size, glyphs))
            try:
                keys = terminal.keys(REFRESH_S, feed.fileno())
            except EOFError:
                return 0
            if "q" in keys:
                return 0
            feed.ask(size.lines)
    return 0


def _screen(lines: list[Text], size: os.terminal_size, glyphs: Glyphs) -> list[Text]:
    """As many lines as there is room for; the last says that there are others."""
    if len(lines) <= size.lines:
        return lines
    return [*lines[: size.lines - 1], Text(glyphs.cut(MORE, size.columns), "dim")]


def _lines(sessions: Sessions, width: int, out: Console, glyphs: Glyphs) -> list[Text]:
    text = sessions_list(sessions, width)
    if not glyphs.all_characters:
        text.plain = "\n".join(map(glyphs.clean, text.plain.split("\n")))
    return list(text.wrap(out, width))


def watch_in_pipe(
    client: Client, fetch: Callable[[int], Sessions], first: Sessions, limit: int, show: Show
) -> int:
    """Until Ctrl-C. If the service is restarted, its sessions appear again."""
    show(first)
    while True:
        time.sleep(REFRESH_S)
        try:
            found = fetch(limit)
        except PmError as e:
            client.close()
            print(f"mptcp-pm: {e}", file=sys.stderr)
        else:
            show(found)
