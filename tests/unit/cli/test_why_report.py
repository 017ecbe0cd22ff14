# SPDX-License-Identifier: GPL-2.0-only
"""What ``why`` prints, and what it makes of mistakes."""

from __future__ import annotations

import json

import pytest

from tests.unit.cli.test_main import Server
from tests.unit.cli.test_preview_report import run, server

__all__ = ["server"]

TOKEN = "0xa0000001"


def test_every_finding_with_evidence_and_commands(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the session, then of each pair; no line is longer than a terminal, and a guess is called so."""
    status, text = run(server, capsys, "why", TOKEN)
    assert status == 0
    assert text.splitlines() == [
        f"session {TOKEN}, policy sync",
        "",
        "One end has closed. [half_closed]",
        "",
        "10.0.3.1 × 10.0.1.2 port 443: opening for 3.2 s, retransmits: 2",
        "  Likely: No answer came. [syn_unanswered]",
        "    - 2 retransmits",
        "    $ ping 10.0.1.2",
    ]


def test_json_is_the_document(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """As REST answers it."""
    status, text = run(server, capsys, "why", TOKEN, "--json")
    assert status == 0
    document = json.loads(text)
    assert [f["code"] for f in document["findings"]] == ["half_closed"]
    assert [f["likely"] for p in document["pairs"] for f in p["findings"]] == [True]


@pytest.mark.parametrize("subject", ["0xdead", "never", "0x123456789", "-", "../status"])
def test_a_token_that_nobody_knows(server: Server, capsys: pytest.CaptureFixture[str], subject: str) -> None:
    """One line."""
    status, text = run(server, capsys, "why", subject)
    assert (status, text.count("\n")) == (1, 1)
    assert "no session" in text
