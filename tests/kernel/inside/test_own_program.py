# SPDX-License-Identifier: Apache-2.0
"""A program of one's own for the kernel's interface, as docs/kernel-abi.md has it."""

from __future__ import annotations

import subprocess
import sys

from tests.lab.service import ROOT
from tests.lab.two_hosts import TwoHosts
from tests.lab.waiting import wait_equal

ATTACH = ROOT / "docs/examples/own_program/attach.py"


def test_documented_example(hosts: TwoHosts) -> None:
    """While it is attached, each session of the cgroup has a second subflow, opened by the program."""
    listener = hosts.listen("0.0.0.0")
    command = (sys.executable, "-B", str(ATTACH), str(hosts.client.cgroup))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"attached\n"
        hosts.connect(listener)
        wait_equal(lambda: len(hosts.client.subflows()), 2)
        process.terminate()
    assert process.returncode == 0
    assert hosts.client.counter("BPFClaimed") == 1
    hosts.connect(listener)
    assert hosts.client.counter("BPFClaimed") == 1
