# SPDX-License-Identifier: Apache-2.0
"""These tests run under the patched kernel: tests/kernel/test_kernel.py starts it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.lab.path_manager_programs import Load, PathManagerProgram
from tests.lab.precompiled import precompiled_programs
from tests.lab.recorder import Recorder
from tests.lab.two_hosts import Host, TwoHosts

# A report of the kernel about itself
TROUBLE = ("WARNING:", "BUG:", "KASAN", "possible recursive locking", "INFO: task", "Call Trace", "RCU:")


def kernel_log() -> list[str]:
    return subprocess.run(["dmesg"], check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.fixture(autouse=True)
def quiet_kernel() -> Iterator[None]:
    """The kernel has nothing to say against the test."""
    before = len(kernel_log())
    yield
    trouble = [line for line in kernel_log()[before:] if any(word in line for word in TROUBLE)]
    assert not trouble, "\n".join(trouble)


@pytest.fixture(scope="session", autouse=True)
def no_leak() -> Iterator[None]:
    """On a kernel with kmemleak, nothing is unreferenced at the end."""
    yield
    if subprocess.run(["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"]).returncode:
        return
    kmemleak = Path("/sys/kernel/debug/kmemleak")
    if kmemleak.exists():
        kmemleak.write_text("scan")
        time.sleep(6)  # kmemleak does not report what is younger than 5 s
        kmemleak.write_text("scan")
        assert not (leaks := kmemleak.read_text()), leaks


@pytest.fixture(scope="session", autouse=True)
def programs() -> Iterator[None]:
    """The services need not compile their own programs; third parties' are compiled all the same."""
    with precompiled_programs():
        yield


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    with TwoHosts() as hosts:
        yield hosts


@pytest.fixture(scope="session")
def recorders() -> tuple[Recorder, Recorder]:
    """Compiled and loaded once for all tests."""
    return Recorder(), Recorder()


@pytest.fixture
def client(hosts: TwoHosts, recorders: tuple[Recorder, Recorder]) -> Recorder:
    """It records at the client, and claims every session."""
    return at_work(recorders[0], hosts.client)


@pytest.fixture
def server(hosts: TwoHosts, recorders: tuple[Recorder, Recorder]) -> Recorder:
    """It records at the server, and claims every session."""
    return at_work(recorders[1], hosts.server)


def at_work(recorder: Recorder, host: Host) -> Recorder:
    recorder.reset()
    recorder.reply()
    recorder.attach(host.cgroup)
    return recorder


@pytest.fixture
def load() -> Iterator[Load]:
    """Attach a path manager's program, for the time of the test."""
    with ExitStack() as stack:
        yield lambda *args, **kw: stack.enter_context(closing(PathManagerProgram(*args, **kw)))
