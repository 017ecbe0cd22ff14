# SPDX-License-Identifier: GPL-2.0-only
"""A function run inside a network namespace, in this process: its sockets and /proc/sys are of there."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
CLONE_NEWNET = 0x40000000


def inside(netns: str, function: Callable[[], T]) -> T:
    """What ``function()`` returns or raises, run by a thread of its own that entered /run/netns/NETNS."""

    def enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        fd = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        try:
            if libc.setns(fd, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns {netns}")
        finally:
            os.close(fd)

    with ThreadPoolExecutor(1, initializer=enter) as executor:
        return executor.submit(function).result()
