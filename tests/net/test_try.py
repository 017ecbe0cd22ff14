# SPDX-License-Identifier: Apache-2.0
"""``kernel/try`` and mistakes: it says what is wrong before it makes anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.service import ROOT

SOURCE = ROOT / "docs/examples/second_interface/second_interface.c"


@pytest.mark.parametrize("parameter", ["subflows=x", "subflows", "=3", "sub flows=3", "subflows=-1"])
def test_a_parameter_that_is_none(parameter: str) -> None:
    """One line, and nothing is booted."""
    run = subprocess.run(
        [ROOT / "kernel/try", SOURCE, parameter], capture_output=True, text=True, check=False
    )
    assert run.stderr == f"kernel/try: {parameter}: write NAME=VALUE, where VALUE is a whole number\n"
    assert run.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "problem"), [(["--ipv4"], "unknown option --ipv4"), (["--ipv6"], "name the C file")]
)
def test_options_that_are_none(arguments: list[str], problem: str) -> None:
    """The same."""
    run = subprocess.run([ROOT / "kernel/try", *arguments], capture_output=True, text=True, check=False)
    assert run.stderr.startswith(f"kernel/try: {problem}")
    assert (run.stderr.count("\n"), run.returncode) == (1, 2)


@pytest.mark.parametrize(
    ("text", "parameters", "problem"),
    [
        ("int wrong_manage(void) { return missing; }", [], "does not compile: line 1: "),
        ("int other(void);", [], "has no function `wrong_manage`: define it"),
        (SOURCE.read_text().replace("second_interface", "wrong"), ["depth=1"], "has no parameter `depth`"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, parameters: list[str], problem: str) -> None:
    """One line about the file, no traceback."""
    source = tmp_path / "wrong.c"
    source.write_text(text)
    tried = [sys.executable, "-m", "tests.lab.try_program", str(source), *parameters]
    run = subprocess.run(tried, cwd=ROOT, capture_output=True, text=True, check=False)
    (line,) = run.stderr.splitlines()
    assert problem in line
    assert str(source) in line
    assert run.returncode == 1
