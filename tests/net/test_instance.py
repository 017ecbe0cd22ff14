# SPDX-License-Identifier: Apache-2.0
"""One service per network namespace, whatever else two of them share or do not share."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pm.errors import PmError, SystemUnfit
from pm.linux.host.instance import Instance, check_state_directory, lock_directory
from tests.lab.netns import inside, namespace
from tests.lab.service import ROOT

CLAIM = "from pm.linux.host.instance import Instance; Instance(None).__enter__()"
HOLD = """
import pathlib, time
from pm.linux.host.instance import Instance
instance = Instance(pathlib.Path("{pins}")).__enter__()
print("in", flush=True)
time.sleep(60)
"""
SQUAT = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind("\\0mptcp-pm")
if sys.argv[1] == "listening":
    s.listen()
print("bound", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def netns() -> Iterator[str]:
    with namespace() as name:
        yield name


@contextmanager
def squatter(state: str) -> Iterator[None]:
    """An ordinary user's process has the name in the caller's namespace."""
    user = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    with subprocess.Popen(
        [*user, "/usr/bin/python3", "-c", SQUAT, state], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"bound\n"
        yield
        process.stdin.close()


def test_two_services_that_share_nothing_but_the_namespace(netns: str) -> None:
    """The second is refused, with the first one's pid; one in another namespace is not."""

    def second() -> None:
        with Instance(None), pytest.raises(PmError, match=rf"already running .*\(pid {os.getpid()}\)"):
            Instance(None).__enter__()
        with Instance(None):  # the first one has ended
            pass

    with Instance(None):
        inside(netns, second)


def test_another_pid_namespace(netns: str) -> None:
    """The kernel tells no pid then, and the message does without."""

    def second() -> subprocess.CompletedProcess[str]:
        command = ["unshare", "--pid", "--fork", sys.executable, "-c", CLAIM]
        with Instance(None):
            return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

    refused = inside(netns, second)
    assert refused.returncode == 1
    assert "already running in this network namespace (in another container)" in refused.stderr


@pytest.mark.parametrize("state", ["listening", "bound"])
def test_an_ordinary_user_keeps_nobody_from_starting(
    netns: str, state: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody else's socket has the name: the start goes on, and says whose it is; pins are locked too."""
    pins = tmp_path / "mptcp-pm" / "7"

    def start() -> None:
        with squatter(state), Instance(pins):
            with pytest.raises(PmError, match=f"it holds {pins}"):
                Instance(pins).__enter__()
            with Instance(tmp_path / "mptcp-pm" / "8"):
                pass

    inside(netns, start)
    out = capsys.readouterr().out
    assert "lock_held_by_another_user" in out
    assert ("65534" in out) == (state == "listening")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_others_removed_is_locked_again(netns: str, tmp_path: Path) -> None:
    """With the next look: whoever finds pins without a lock may take them for those of a dead service."""
    pins = tmp_path / "7"

    def remove() -> None:
        with Instance(pins) as instance:
            pins.rmdir()
            assert asyncio.run(instance.look()) == {}
            assert not pins.exists()
            pins.mkdir()
            assert asyncio.run(instance.look()) == {}
            assert lock_directory(pins) is None

    inside(netns, remove)


def test_a_lock_ends_with_its_process(netns: str, tmp_path: Path) -> None:
    """SIGKILL leaves the directory and no lock."""
    pins = tmp_path / "7"
    script = HOLD.format(pins=pins)

    def scenario() -> None:
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT) as first:
            assert first.stdout
            assert first.stdout.readline() == b"in\n"
            with pytest.raises(PmError, match=f"pid {first.pid}"):
                Instance(pins).__enter__()
            first.kill()
        assert pins.is_dir()
        with Instance(pins):
            pass

    inside(netns, scenario)


def test_a_state_directory_that_cannot_be_written() -> None:
    """One line, with the option that names another directory."""
    for directory in (Path("/proc/mptcp-pm"), Path("/dev/null/x")):
        with pytest.raises(SystemUnfit, match=f"{directory} cannot be written .*--state-directory"):
            check_state_directory(directory)
