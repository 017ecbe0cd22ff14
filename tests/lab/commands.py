# SPDX-License-Identifier: Apache-2.0
"""Commands that a test waits for."""

from __future__ import annotations

import subprocess


def run(*command: str, input: str | None = None) -> str:
    """Output of a command; AssertionError with its errors where it fails."""
    done = subprocess.run(command, input=input, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}\n{input or ''}"
    return done.stdout
