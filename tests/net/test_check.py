# SPDX-License-Identifier: Apache-2.0
"""`mptcp-pm check` compiles third parties' C files, and has the kernel verify them where it can."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.lab.service import ROOT, command

LEVEL = (ROOT / "docs/examples/level/level.c").read_text()
SECOND = (ROOT / "docs/examples/second_interface/second_interface.c").read_text()


def check(tmp_path: Path, policy: dict[str, Any], datapath: str = "auto") -> dict[str, Any]:
    file = tmp_path / "config.yaml"
    document = {"datapath": datapath, "policies": [{"name": "a", "cgroup": "/a", **policy}]}
    file.write_text(json.dumps(document))
    done = subprocess.run(
        [*command(), "check", "--json", str(file)],
        capture_output=True,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (not found["ok"])
    return found


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("", ""), ""),
        (("value[0] =", "valu[0] ="), "level.c does not compile: line 22: use of undeclared identifier"),
        (("level_compose", "level_compse"), "level.c has no function `level_compose`: define it"),
        (
            ("return OPTION_NOTHING;", "return *(volatile int *)8;"),
            "verifier refused the BPF program options: R",
        ),
    ],
    ids=["good", "compiler", "misnamed", "verifier"],
)
def test_option(tmp_path: Path, change: tuple[str, str], problem: str) -> None:
    """What the compiler or the verifier refuses is an error with its first line, and names the file."""
    source = tmp_path / "level.c"
    source.write_text(LEVEL.replace(*change))
    plugin = {"name": "level", "source": str(source), "exid": 1, "send": True}
    found = check(tmp_path, {"path_manager": "none", "options": {"plugins": [plugin]}})
    messages = [p["message"] for p in found["problems"]]
    assert all(str(source) in m and problem in m for m in messages)
    assert found["ok"] == (not problem)


def test_option_without_effect(tmp_path: Path) -> None:
    """A plugin that neither sends nor accepts is an error."""
    plugin = {"name": "level", "source": "/x.c", "exid": 1}
    (problem,) = check(tmp_path, {"path_manager": "none", "options": {"plugins": [plugin]}})["problems"]
    assert problem["message"] == "plugin `level` has no effect: set `send` or `accept`, or remove it"


def test_program(tmp_path: Path) -> None:
    """A path manager in C is compiled on any kernel; what this one cannot tell is said."""
    source = tmp_path / "second_interface.c"
    program = {"name": "second_interface", "source": str(source), "parameters": {"subflows": 3}}
    policy: dict[str, Any] = {"path_manager": {"program": program}}
    assert "No such file" in check(tmp_path, policy)["problems"][0]["message"]
    source.write_text(SECOND)
    found = check(tmp_path, policy)
    assert found["ok"]
    assert all("not verified by the kernel: that needs the patched" in what for what in found["not_checked"])
    assert "boot the patched kernel" in check(tmp_path, policy, "netlink")["problems"][0]["message"]
    source.write_text(SECOND.replace("open_subflow(", "open_subflw("))
    message = check(tmp_path, policy)["problems"][0]["message"]
    assert f"{source} does not compile: line" in message
    program["parameters"] = {"sublows": 3}
    assert "has no parameter `sublows`" in check(tmp_path, policy)["problems"][0]["message"]
