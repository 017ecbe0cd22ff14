# SPDX-License-Identifier: Apache-2.0
"""The BPF programs of the services that tests start, compiled once; and services without a compiler."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pm.linux.bpf.precompile import precompile
from pm.linux.bpf.precompiled import DIRECTORY_VARIABLE

# In every Python process whose PYTHONPATH has it: as if BCC were not installed.
NO_BCC = 'import sys\nsys.modules["bcc"] = None\n'


@contextlib.contextmanager
def precompiled_programs() -> Iterator[None]:
    """Services load precompiled programs meanwhile, unless the environment names some already."""
    if DIRECTORY_VARIABLE in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="mptcp-pm-objects-") as directory:
        precompile(Path(directory))
        os.environ[DIRECTORY_VARIABLE] = directory
        try:
            yield
        finally:
            del os.environ[DIRECTORY_VARIABLE]


def without_bcc(directory: Path) -> dict[str, str]:
    """Environment variables of a process that finds no BCC; ``directory`` gets a file."""
    (directory / "sitecustomize.py").write_text(NO_BCC)
    return {"PYTHONPATH": str(directory)}
