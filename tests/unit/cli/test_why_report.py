# SPDX-License-Identifier: Apache-2.0
"""What ``why`` prints, and what it makes of mistakes."""

from __future__ import annotations

import json

import pytest

from pm.cli.main import main
from tests.unit.builders import socket_record
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


@pytest.mark.parametrize("subject", ["0xdead", "0x123456789", "00000000"])
def test_a_token_that_nobody_knows(server: Server, capsys: pytest.CaptureFixture[str], subject: str) -> None:
    """One line."""
    status, text = run(server, capsys, "why", subject)
    assert (status, text.count("\n")) == (1, 1)
    assert "no session" in text


def test_sockets_of_one_kind_stand_together(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """A finding is written once; a session has its own answer; the rest is counted."""
    server.plane.paths[7] = "/a"
    server.plane.sockets += [
        *(socket_record(local_port=40000 + i) for i in range(99)),
        socket_record(mptcp=True, token=0xA0000001, local="fd00::1"),
        *(socket_record(local_port=50000 + i) for i in range(7)),
    ]
    status, text = run(server, capsys, "why", "/sys/fs/cgroup/a")
    lines = text.splitlines()
    assert status == 0
    assert lines[0] == "10.0.1.1:40000 → 10.0.9.1:5201 TCP, established"
    assert lines[10] == "… and 89 more"
    assert text.count("[plain_socket]") == 1
    at = next(i for i, line in enumerate(lines) if line.startswith("[fd00::1]:40000 → 10.0.9.1:5201 MPTCP"))
    assert " ".join(line.strip() for line in lines[at : at + 2]).endswith(f"session {TOKEN}, policy sync")
    assert lines[at + 2 : at + 4] == ["", "One end has closed. [half_closed]"]
    assert lines[-1] == "7 more sockets are left out."
    assert max(map(len, lines)) <= 80


def test_a_process_needs_a_service_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """Its number means nothing elsewhere."""
    assert main(["--url", "http://127.0.0.1:9", "why", "1"]) == 1
    assert "--url" in capsys.readouterr().err
