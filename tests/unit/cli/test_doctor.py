# SPDX-License-Identifier: Apache-2.0
"""What ``doctor --to`` takes for a peer."""

from __future__ import annotations

import pytest

from pm.cli.doctor import _remotes
from pm.cli.main import main


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("foo", "is not an IP address"),
        ("fe80::1%eth0", "has a zone: leave `%` and the interface out"),
        ("127.0.0.1", "is this host itself"),
        ("::1", "is this host itself"),
        ("::ffff:127.0.0.1", "is this host itself"),
        ("0.0.0.0", "is not the address of a host"),
        ("::", "is not the address of a host"),
        ("255.255.255.255", "is not the address of a host"),
        ("224.0.0.1", "is not the address of a host"),
        ("ff02::1", "is not the address of a host"),
    ],
)
def test_what_is_no_peer(text: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, before anything is looked at."""
    assert main(["doctor", "--to", text]) == 1
    error = f"mptcp-pm: {text!r} {reason}: write 192.0.2.1, or 2001:db8::1\n"
    assert capsys.readouterr() == ("", error)


def test_mapped_addresses_are_of_ipv4() -> None:
    """As a socket of both families has them."""
    assert _remotes("::ffff:192.0.2.1") == {4: "192.0.2.1"}
