# SPDX-License-Identifier: Apache-2.0
"""A failed test shows the service's log and the sockets of its lab; a test that passes shows nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.service import ROOT

HEAD = """
from tests.lab.lab import Lab
from tests.lab.waiting import wait_equal

def act(lab):
    lab.server()
    lab.service({"policies": [{"name": "x", "cgroup": lab.cgroup("x"), "path_manager": "fullmesh"}]})
    lab.client().open()
"""
FAILS_WITH_A_FIXTURE = """
def test_it(lab):
    act(lab)
    wait_equal(lambda: lab.established(), [7], deadline_s=0.1)
"""
FAILS_WITHIN_A_BLOCK = """
def test_it():
    with Lab() as lab:
        act(lab)
        wait_equal(lambda: lab.established(), [7], deadline_s=0.1)
"""
PASSES_AFTER_A_FAILURE = """
import pytest

def test_it():
    with pytest.raises(AssertionError), Lab() as lab:
        act(lab)
        assert False

def test_the_next_one():
    assert False
"""


def outcome(tmp_path: Path, test: str) -> str:
    """What pytest prints about the test, run by itself with our fixtures and hooks."""
    file = tmp_path / "test_it.py"
    file.write_text(HEAD + test)
    options = ("-q", "-c", "/dev/null", f"--rootdir={tmp_path}", "-p", "no:cacheprovider")
    plugins = ("-p", "tests.conftest", "-p", "tests.net.conftest")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *plugins, str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("test", [FAILS_WITH_A_FIXTURE, FAILS_WITHIN_A_BLOCK], ids=["fixture", "block"])
def test_failure_shows_log_and_sockets(tmp_path: Path, test: str) -> None:
    """The report has what was wanted and what came, the log of the service, and both sides' sockets."""
    shown = outcome(tmp_path, test)
    assert "wanted: [7]" in shown
    assert "came:   [1]" in shown
    assert shown.count("log of mptcp-pm in") == 1
    assert '"event": "started"' in shown
    for side in ("client", "server"):
        (section,) = [s for s in shown.split("\n---") if "ss in mptcp-pm-test-" in s and f"-{side} ---" in s]
        assert "tcp-ulp-mptcp" in section
        assert ":5000" in section


def test_a_test_shows_nothing_of_another(tmp_path: Path) -> None:
    """What a lab showed in one test, here an expected failure, is not in the report of the next."""
    shown = outcome(tmp_path, PASSES_AFTER_A_FAILURE)
    assert "1 failed, 1 passed" in shown
    assert "ss in" not in shown
    assert "log of" not in shown
