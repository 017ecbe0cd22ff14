# SPDX-License-Identifier: Apache-2.0
"""`mptcp-pm session TOKEN`: what has ended is shown too, in 80 columns."""

from __future__ import annotations

import io

from rich.console import Console

from pm.api.views import session_detail_view
from pm.cli.session_report import session_report
from pm.cli.tables import sessions_list
from pm.model import Figures
from pm.sessions.closed_subflows import ClosedSubflow, ClosedSubflows, FigureSource
from pm.sessions.ledger import Ledger
from tests.unit.builders import at, session, subflow
from tests.unit.cli.top import documents


def test_closed_subflows_and_totals() -> None:
    """Each with why it ended and whether its figures are complete, and the sum of those before."""
    one, ledger = session(closed=ClosedSubflows()), Ledger()
    assert one.closed is not None
    for number in range(70):
        closed = subflow(
            "fd00:1234:5678:9abc::1", "fd00:1234:5678:9abc::2", local_port=41000 + number, since=1.0
        )
        ledger.note(one, closed, Figures(1024, 2048, number))
        source = FigureSource.KERNEL if number % 2 else FigureSource.LAST_SAMPLE
        one.closed.add(ClosedSubflow(closed, at(5.0), f"{closed.pair}: by hand", source))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(session_report(session_detail_view(one, None, None, [], [], [], at(9.0))))
    shown = console.export_text()
    assert "70.0 KiB (acknowledged, over all subflows)" in shown
    assert "and 6 before them: 6.0 KiB sent, 12.0 KiB received" in shown
    assert shown.count("by hand") == 64
    assert shown.count("last sample") == shown.count("complete") == 32
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80


def test_a_reason_of_a_third_party_commands_the_terminal_nothing() -> None:
    """Path managers of others say why they opened a subflow."""
    text = sessions_list([documents.session(subflows=[documents.subflow(reason="mine\x1b[2J")])], 80).plain
    assert "mine\\x1b[2J" in text
    assert "\x1b" not in text
