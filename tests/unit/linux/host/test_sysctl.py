# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from pm.errors import SystemUnfit
from pm.linux.host.sysctl import PathManagerSysctl, find_spelling


@pytest.fixture
def sysctls(tmp_path: Path) -> Path:
    """A directory like /proc/sys/net/mptcp of a kernel that knows ``pm_type`` only."""
    directory = tmp_path / "mptcp"
    directory.mkdir()
    (directory / "pm_type").write_text("0\n")
    return directory


def test_the_newer_spelling_is_preferred(sysctls: Path) -> None:
    """A kernel with both gets ``path_manager``, one with neither has no path managers in user space."""
    older = find_spelling(sysctls)
    assert older is not None
    assert older.setting == "net.mptcp.pm_type=1"
    (sysctls / "path_manager").write_text("kernel\n")
    newer = find_spelling(sysctls)
    assert newer is not None
    assert newer.setting == "net.mptcp.path_manager=userspace"
    assert find_spelling(sysctls / "absent") is None


def test_pm_type_is_set_and_put_back(sysctls: Path, tmp_path: Path) -> None:
    """On older kernels ``pm_type`` is 1 while entered; nothing is left behind."""
    with PathManagerSysctl(tmp_path / "state", sysctls):
        assert (sysctls / "pm_type").read_text() == "1"
    assert (sysctls / "pm_type").read_text() == "0"
    assert list((tmp_path / "state").iterdir()) == []


def test_a_damaged_note_is_no_note(sysctls: Path, tmp_path: Path) -> None:
    """What cannot be read as a note of ours leaves the administrator's value in place."""
    state = tmp_path / "state"
    for damage in ("", "[]", "null", "{", json.dumps({"pm_type": 0}), json.dumps({"path_manager": "kernel"})):
        (sysctls / "pm_type").write_text("0")
        abandoned = PathManagerSysctl(state, sysctls)
        abandoned.__enter__()
        (note,) = state.iterdir()
        note.write_text(damage)
        with PathManagerSysctl(state, sysctls):
            pass
        assert (sysctls / "pm_type").read_text() == "1"


def test_no_such_sysctl_names_the_kernel_to_boot(tmp_path: Path) -> None:
    """Without MPTCP, or before Linux 5.19, the service is told what it needs."""
    with pytest.raises(SystemUnfit, match=r"5\.19"), PathManagerSysctl(tmp_path, tmp_path / "absent"):
        pass


def test_a_state_directory_that_cannot_be_made_changes_nothing(sysctls: Path, tmp_path: Path) -> None:
    """The note is written first: without it the original value would be lost."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SystemUnfit, match="cannot be written"),
        PathManagerSysctl(tmp_path / "file" / "state", sysctls),
    ):
        pass
    assert (sysctls / "pm_type").read_text() == "0\n"
