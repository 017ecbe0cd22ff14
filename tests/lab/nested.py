# SPDX-License-Identifier: Apache-2.0
"""Directories in each other, deeper than a path can say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def nested(top: Path, name: str, levels: int) -> Iterator[None]:
    """A chain of directories, the last of which have no path that the kernel takes."""
    at = [os.open(top, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        for _ in range(levels):
            os.mkdir(name, dir_fd=at[-1])
            at.append(os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at[-1]))
        yield
    finally:
        os.close(at.pop())
        while at:
            os.rmdir(name, dir_fd=at[-1])
            os.close(at.pop())
