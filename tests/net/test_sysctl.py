# SPDX-License-Identifier: Apache-2.0
"""The sysctl of the path manager: set at the start, restored at the end, on either spelling."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pm.linux.host.sysctl import SPELLINGS, SYSCTLS, PathManagerSysctl
from tests.lab.commands import run
from tests.lab.netns import inside, namespace
from tests.lab.service import ROOT


@pytest.fixture
def netns() -> Iterator[str]:
    with namespace() as name:
        yield name


def value() -> str:
    """What the running kernel says, in the namespace of the caller."""
    return " ".join((SYSCTLS / s.name).read_text().strip() for s in SPELLINGS if (SYSCTLS / s.name).exists())


def test_userspace_while_entered_then_the_original(netns: str, tmp_path: Path) -> None:
    """The namespace's own sysctl changes and comes back; the test's namespace keeps its."""
    outside = value()

    def scenario() -> None:
        original = value()
        with PathManagerSysctl(tmp_path):
            assert (SYSCTLS / SPELLINGS[0].name).read_text().strip() == "userspace"
            assert value() != original
        assert value() == original
        assert list(tmp_path.iterdir()) == []

    inside(netns, scenario)
    assert value() == outside


def test_a_start_after_a_kill_still_knows_the_original(netns: str, tmp_path: Path) -> None:
    """The note of a service that never exited says what to put back."""

    def scenario() -> None:
        original = value()
        killed = PathManagerSysctl(tmp_path)
        killed.__enter__()
        with PathManagerSysctl(tmp_path):
            assert value() != original
        assert value() == original
        assert list(tmp_path.iterdir()) == []

    inside(netns, scenario)


def test_the_note_of_one_namespace_is_not_anothers(netns: str, tmp_path: Path) -> None:
    """A namespace that was set to userspace by its administrator stays so, whatever happened in another."""

    def set_userspace() -> str:
        (SYSCTLS / SPELLINGS[0].name).write_text("userspace")
        return value()

    def enter_and_exit() -> str:
        with PathManagerSysctl(tmp_path):
            return value()

    inside(netns, lambda: PathManagerSysctl(tmp_path).__enter__())
    with namespace() as other:
        userspace = inside(other, set_userspace)
        assert inside(other, enter_and_exit) == userspace
        assert inside(other, value) == userspace


def test_somebody_elses_change_meanwhile_stays(netns: str, tmp_path: Path) -> None:
    """Where the value at exit is not ours any more, nothing is put back, and the note is gone."""

    def scenario() -> None:
        file = SYSCTLS / SPELLINGS[0].name
        file.write_text("userspace")
        administrator = PathManagerSysctl(tmp_path)
        administrator.__enter__()
        file.write_text("kernel")
        administrator.__exit__(None, None, None)
        assert file.read_text().strip() == "kernel"
        assert list(tmp_path.iterdir()) == []

    inside(netns, scenario)


def enter_read_only(netns: str, state: Path) -> str:
    """What happens on entry where /proc/sys is read-only, as in a container."""
    script = (
        "import pathlib, sys\n"
        "from pm.errors import SystemUnfit\n"
        "from pm.linux.host.sysctl import PathManagerSysctl\n"
        "try:\n"
        "    with PathManagerSysctl(pathlib.Path(sys.argv[1])): print('entered')\n"
        "except SystemUnfit as e: print(e)"
    )
    return run(
        "nsenter", f"--net=/run/netns/{netns}", "unshare", "--mount", "sh", "-c",
        'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"', "sh",
        "env", f"PYTHONPATH={ROOT}", sys.executable, "-c", script, str(state),
    ).strip()  # fmt: skip


def test_a_read_only_sysctl_that_is_right_is_enough(netns: str, tmp_path: Path) -> None:
    """In a container whose runtime set it, nothing has to be written."""
    inside(netns, lambda: (SYSCTLS / SPELLINGS[0].name).write_text("userspace"))
    assert enter_read_only(netns, tmp_path) == "entered"


def test_a_read_only_sysctl_that_is_wrong_names_the_command(netns: str, tmp_path: Path) -> None:
    """One line with the command, and no note that would mislead the next start."""
    line = enter_read_only(netns, tmp_path)
    assert "cannot be set (Read-only file system)" in line
    assert "net.mptcp.path_manager=userspace`" in line
    assert list(tmp_path.iterdir()) == []
