# SPDX-License-Identifier: Apache-2.0
"""What ``explain`` and ``reload --dry-run`` print, and what they make of mistakes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pm.cli.main import main
from pm.errors import Problem
from tests.unit.cli.test_main import MPTCP_PM, Server, environment

__all__ = ["environment", "server"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server(tmp_path)
    made.start()
    monkeypatch.setenv("MPTCP_PM_SOCKET", made.socket)
    return made


def run(server: Server, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    try:
        status = main(words)
    finally:
        server.stop()
    out, err = capsys.readouterr()
    return status, out + err


@pytest.mark.parametrize("prefix", ["/sys/fs/cgroup", "ControlGroup=", "0::"])
def test_explain_shows_subflows_and_what_is_left_out(
    server: Server, capsys: pytest.CaptureFixture[str], prefix: str
) -> None:
    """Each with its reason; a cgroup is understood as `why` understands it."""
    cgroup = f"{prefix}/system.slice/a.service"
    status, text = run(server, capsys, "explain", "--cgroup", cgroup, "--to", "10.0.9.1:80")
    assert status == 0
    for words in ("/system.slice/a.service", "sync (/system.slice/rsync*.service)", "500 ms and 65536 bytes"):
        assert words in text
    assert "10.0.2.1 × 10.0.9.1" in text
    assert "to its interface" in text
    assert "no route (ENETUNREACH)" in text
    assert "raised RuntimeError: bug" in text
    assert prefix not in text


@pytest.mark.parametrize("to", ["example.org:443", "10.0.0.1:x", "10.0.0.1:0", "::1:443x", ""])
def test_a_destination_that_is_none(server: Server, capsys: pytest.CaptureFixture[str], to: str) -> None:
    """One line that says what to write."""
    status, text = run(server, capsys, "explain", "--cgroup", "/a", "--to", to)
    assert (status, text.count("\n")) == (1, 1)
    assert "write 192.0.2.1:443, or [2001:db8::1]:443" in text


def test_a_cgroup_without_a_slash(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The service's own words."""
    status, text = run(server, capsys, "explain", "--cgroup", "a", "--to", "::1")
    assert (status, "must start with `/`" in text) == (1, True)


def test_a_dry_run_shows_each_session(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What is opened and closed, in how many sessions, and the warnings of the file."""
    (tmp_path / "new.yaml").write_text("policies: []\n")
    status, text = run(server, capsys, "reload", "--dry-run", str(tmp_path / "new.yaml"))
    assert status == 0
    assert f"{tmp_path}/new.yaml:4: policies[0].cgroup: looks wrong" in text
    assert "/etc/mptcp-pm.yaml" not in text
    assert "1 subflows opened, 1 closed, in 2 sessions" in text
    for words in (": policy sync → rest", "open   10.0.2.1 × 10.0.9.1", "close  ", "backup "):
        assert words in text


def test_a_file_that_cannot_be_read(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Said before the service is asked."""
    status, text = run(server, capsys, "reload", "--dry-run", "/nowhere.yaml")
    assert (status, text.count("\n")) == (1, 1)
    assert text.startswith("/nowhere.yaml: does not exist")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fifo", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        ("large", "is larger than 1 MiB"),
        ("binary", "is not UTF-8 (byte 0xff)"),
    ],
)
def test_a_file_that_is_no_configuration(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, words: str
) -> None:
    """What `check` says of it: it is neither waited for nor read without an end."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"#" * (1 << 20) + b"\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    status, text = run(server, capsys, "reload", "--dry-run", str(tmp_path / name))
    assert (status, text.count("\n")) == (1, 1)
    assert text.startswith(f"{tmp_path / name}:")
    assert words in text


def test_problems_of_a_dry_run_name_the_file_that_was_given(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The service knows only its own file."""
    server.plane.bad_config = (Problem("/etc/mptcp-pm.yaml", 3, "policies", "missing"),)
    (tmp_path / "new.yaml").write_text("x: 1\n")
    status, text = run(server, capsys, "reload", "--dry-run", str(tmp_path / "new.yaml"))
    assert (status, text) == (1, f"{tmp_path}/new.yaml:3: policies: missing\n")


def test_a_dry_run_of_standard_input(server: Server, environment: dict[str, str]) -> None:
    """As `check -` has it."""
    try:
        ran = subprocess.run(
            [*MPTCP_PM, "reload", "--dry-run", "-"],
            env=environment,
            input="policies: []\n",
            capture_output=True,
            text=True,
        )
    finally:
        server.stop()
    assert (ran.returncode, "/dev/stdin:4: policies[0].cgroup: looks wrong" in ran.stdout) == (0, True)
