# SPDX-License-Identifier: GPL-2.0-only
"""A bare network namespace for tests that need no laboratory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.lab import NAME, run

_serial = itertools.count(1)


@contextmanager
def namespace() -> Iterator[str]:
    """The name of a new network namespace, as in /run/netns; it is gone after the block."""
    name = f"{NAME}-bare-{next(_serial)}"
    run("ip", "netns", "add", name)
    try:
        yield name
    finally:
        run("ip", "netns", "del", name)
