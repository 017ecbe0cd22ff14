# SPDX-License-Identifier: Apache-2.0
"""What firewalls and middleboxes between the hosts of a lab do, by iptables in its router."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.lab import Lab

MPTCP = "30"  # the kind of its options
OPTION = ("--tcp-option", MPTCP)
DROP = ("-j", "DROP")
RESET = ("-j", "REJECT", "--reject-with", "tcp-reset")
PROHIBIT = ("-j", "REJECT", "--reject-with", "icmp-admin-prohibited")
STRIP = ("-t", "mangle", "-j", "TCPOPTSTRIP", "--strip-options", MPTCP)


@contextmanager
def firewall(lab: Lab, source: str, *rule: str) -> Iterator[None]:
    """A rule for forwarded IPv4 TCP packets from an address, as iptables takes it; gone after the block.

    It holds for packets between links, not for those that stay on one.
    """
    words = ("FORWARD", "-p", "tcp", "-s", source, *rule)
    lab.run("net", "iptables", "-w", "-A", *words)
    try:
        yield
    finally:
        lab.run("net", "iptables", "-w", "-D", *words)
