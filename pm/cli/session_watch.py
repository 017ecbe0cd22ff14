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
from pm.cli.top.feed import Feed
from pm.cli.top.glyphs import Glyphs, glyphs_for
from pm.cli.top.terminal import Terminal
from pm.errors import PmError

REFRESH_S = 1.0
Sessions = list[dict[str, Any]]
Show = Callable[[Sessions], None]


def watch_on_screen(client: Client, out: Console, fetch: Callable[[int], Sessions], first: Sessions) -> int:
    """Until Ctrl-C or `q`. ``fetch`` gets the number of lines of the screen."""
    glyphs = glyphs_for(out.encoding, os.environ)
    with Terminal(out) as terminal, Feed(client, fetch, terminal.size.lines, first, REFRESH_S) as feed:
        while not terminal.interrupted:
            size = terminal.size
            found = feed.latest()
            terminal.draw(_lines(found, feed.error, size.columns, out, glyphs))
            try:
                keys = terminal.keys(REFRESH_S, feed.fileno())
            except EOFError:
                return 0
            if "q" in keys:
                return 0
            feed.ask(size.lines)
    return 0


def _lines(sessions: Sessions, error: str, width: int, out: Console, glyphs: Glyphs) -> list[Text]:
    text = Text(f"trying again: {error}", "bold red") if error else sessions_list(sessions, width)
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
