# SPDX-License-Identifier: Apache-2.0
"""The table of a demo: each session's subflows, what they carry, and why they are there."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text


def console() -> Console:
    """As wide as the terminal; 150 columns in a file, and where a terminal does not know its size."""
    has_size = sys.stdout.isatty() and os.get_terminal_size(sys.stdout.fileno()).columns
    return Console(width=None if has_size else 150)


class Sessions(Protocol):
    """What is shown: a service, or the sidecar of a compose project."""

    def sessions(self) -> list[dict[str, Any]]: ...


class View:
    """The table; throughput is what the kernel's byte counters moved since the last look."""

    def __init__(self, service: Sessions, title: str = "mptcp-pm: sessions of the client") -> None:
        self.service = service
        self.title = title
        self.seen: dict[str, tuple[float, int]] = {}

    def _mbit_per_s(self, key: str, sent: int) -> float:
        now = time.monotonic()
        before, base = self.seen.get(key, (now, sent))
        self.seen[key] = (now, sent)
        return (sent - base) * 8e-6 / (now - before) if now > before else 0.0

    def table(self) -> Table:
        table = Table(title=self.title, expand=True)
        for column in ("session", "policy", "subflow", "state"):
            table.add_column(column, no_wrap=True)
        table.add_column("Mbit/s", justify="right")
        table.add_column("why")
        for session in sorted(self.service.sessions(), key=lambda s: (s["policy"] or "~", s["token"])):
            name = Text(session["token"], "bold")
            manager = session["path_manager"] or "none"
            policy = f"{session['policy']} ({manager})" if session["policy"] else "no policy"
            for flow in session["subflows"]:
                local, remote = (f"{flow[end]['ip']}:{flow[end]['port']}" for end in ("local", "remote"))
                rate = self._mbit_per_s(f"{session['token']} {flow['id']}", flow["bytes_sent"] or 0)
                backup = " backup" if flow["backup"] else ""
                table.add_row(
                    name, policy, f"{local} → {remote}{backup}", flow["state"], f"{rate:.1f}", flow["reason"]
                )
                name, policy = Text(), ""
            table.add_section()
        return table


def watch(console: Console, view: View) -> None:
    """Until Ctrl-C."""
    hint = Text("Ctrl-C ends and cleans up everything", "dim")
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            live.update(Group(view.table(), hint), refresh=True)
            time.sleep(0.5)
