# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: a bare one, and functions, commands and sysctls in one by its name in /run/netns."""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.lab.commands import run

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
# The names of all that the tests of this process make on the machine begin with it.
NAME = f"mptcp-pm-test-{os.getpid()}"
_serial = itertools.count(1)


@contextmanager
def namespace() -> Iterator[str]:
    """The name of a new network namespace without any interface in use; it is gone after the block."""
    name = f"{NAME}-bare-{next(_serial)}"
    run("ip", "netns", "add", name)
    try:
        yield name
    finally:
        run("ip", "netns", "del", name)


def inside(netns: str, function: Callable[[], T]) -> T:
    """What ``function()`` returns or raises, run by a thread of its own in the namespace.

    The sockets it makes, the commands it starts and its /proc/sys and /proc/thread-self/net belong there.
    Raises FileNotFoundError where there is no such namespace.
    """

    def enter_and_call() -> T:
        fd = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        try:
            enter_namespace(fd)
        finally:
            os.close(fd)
        return function()

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(enter_and_call).result()


def enter_namespace(fd: int) -> None:
    """Move the calling thread to the network namespace of this descriptor. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def run_inside(netns: str, *command: str) -> str:
    """``run()`` in the namespace. /sys stays the machine's: ``ip netns exec`` would hide cgroup2."""
    return inside(netns, lambda: run(*command))


def read_sysctl(netns: str, name: str) -> str:
    """The value of ``net.mptcp.enabled`` and the like."""
    return inside(netns, _file(name).read_text).strip()


def write_sysctls(netns: str, values: Mapping[str, object]) -> None:
    """Set sysctls by their names with dots."""

    def write() -> None:
        for name, value in values.items():
            _file(name).write_text(str(value))

    inside(netns, write)


def _file(sysctl: str) -> Path:
    return Path("/proc/sys", sysctl.replace(".", "/"))
