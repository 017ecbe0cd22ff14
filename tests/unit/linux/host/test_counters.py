# SPDX-License-Identifier: Apache-2.0
"""Counters of the namespace, and by how much they rose since a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from pm.linux.host import counters
from pm.linux.host.counters import CounterHistory, read_counters


def write(file: Path, blackholes: int) -> None:
    file.write_text(
        "TcpExt: SyncookiesSent IPReversePathFilter\nTcpExt: 7 2\n"
        f"MPTcpExt: MPJoinSynTx Blackhole\nMPTcpExt: 5 {blackholes}\n"
    )


def test_names_are_those_of_nstat(tmp_path: Path) -> None:
    """Only what a finding may need."""
    write(tmp_path / "netstat", 3)
    assert read_counters(tmp_path / "netstat") == {
        "TcpExtIPReversePathFilter": 2,
        "MPTcpExtMPJoinSynTx": 5,
        "MPTcpExtBlackhole": 3,
    }


@pytest.mark.parametrize("text", ["", "x", "MPTcpExt: A\n", "MPTcpExt:\nMPTcpExt:\n", "A: B\nA: 1\n"])
def test_a_file_that_says_nothing(tmp_path: Path, text: str) -> None:
    """A kernel without MPTCP, or one that writes something else."""
    (tmp_path / "netstat").write_text(text)
    assert read_counters(tmp_path / "netstat") == {}
    assert read_counters(tmp_path / "missing") == {}


def test_rises_since_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the last sample before it; from the oldest one where it was longer ago."""
    file, now = tmp_path / "netstat", [10.0]
    monkeypatch.setattr(counters, "read_counters", lambda: read_counters(file))
    write(file, 1)
    history = CounterHistory(lambda: now[0])
    now[0] = 70.0
    write(file, 4)
    history.take_sample()
    now[0] = 90.0
    write(file, 5)
    assert history.rises_since(80.0) == ({"MPTcpExtBlackhole": 1}, 20.0)
    assert history.rises_since(69.0) == ({"MPTcpExtBlackhole": 4}, 80.0)
    assert history.rises_since(float("-inf")) == ({"MPTcpExtBlackhole": 4}, 80.0)
