# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pm.policies.remote_addresses import RemoteAddresses, RemoteRules, prefix_flags

DEFAULT = RemoteRules(RemoteAddresses())
PUBLIC, PRIVATE = "8.8.8.8", "10.0.9.1"


@pytest.mark.parametrize(
    "ip",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "224.0.0.1", "239.1.1.1", "255.255.255.255"),
        *("::1", "::", "ff02::1", "ff0e::9"),
    ],
)
def test_what_no_host_has_is_refused_always(ip: str) -> None:
    """Also from a private peer, and whatever is allowed."""
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"), ip_network("127.0.0.0/8"))
    for rules in (RemoteAddresses(), RemoteAddresses(allow=everything, private_from_public=True)):
        for first in (PUBLIC, PRIVATE, "fe80::1", "127.0.0.1"):
            assert RemoteRules(rules).refusal(ip, first)


@pytest.mark.parametrize(("ip", "other"), [("169.254.169.254", "169.254.1.1"), ("fe80::9", "fe80::1")])
def test_link_local_addresses_are_for_link_local_sessions(ip: str, other: str) -> None:
    for first in (PUBLIC, PRIVATE, "2001:db8::1", "fd00::1"):
        assert "link-local" in DEFAULT.refusal(ip, first)
    assert DEFAULT.refusal(ip, other) == ""


@pytest.mark.parametrize(
    "ip", ["10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "100.127.9.9", "fd00::1", "fc00::1"]
)
def test_private_addresses_are_for_private_peers(ip: str) -> None:
    """Or for all, if the user says so."""
    for public in (PUBLIC, "2a00::1"):
        assert "private" in DEFAULT.refusal(ip, public)
        assert RemoteRules(RemoteAddresses(private_from_public=True)).refusal(ip, public) == ""
    for private in (PRIVATE, "fd12::1"):
        assert DEFAULT.refusal(ip, private) == ""


@pytest.mark.parametrize("ip", ["9.9.9.9", "172.32.0.1", "100.128.0.1", "2a00::2"])
def test_public_addresses_are_for_all(ip: str) -> None:
    for first in (PUBLIC, PRIVATE, "2a00::1", "fe80::1"):
        assert DEFAULT.refusal(ip, first) == ""


def test_deny_wins_over_allow() -> None:
    """Whichever prefix is longer."""
    rules = RemoteRules(
        RemoteAddresses(
            allow=(ip_network("10.0.0.0/8"), ip_network("10.1.1.0/24")),
            deny=(ip_network("10.1.0.0/16"), ip_network("10.2.2.2/32")),
        )
    )
    refused = [bool(rules.refusal(ip, PRIVATE)) for ip in ("10.0.0.1", "10.1.1.1", "10.2.2.2", "10.2.2.3")]
    assert refused == [False, True, True, False]
    assert rules.refusal("9.9.9.9", PRIVATE)
    assert rules.refusal("fd00::1", PRIVATE)


networks = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 12)).map(
        lambda n: (
            ip_network((int(ip_address("11.0.0.0")) + (n[0] >> n[1] << n[1]), 32 - n[1]))
            if n[1] <= 8
            else ip_network("11.0.0.0/20")
        )
    ),
    max_size=5,
).map(tuple)


@given(networks, networks, st.integers(0, 255))
def test_longest_prefix_says_what_the_lists_say(allow: tuple, deny: tuple, host: int) -> None:  # type: ignore[type-arg]
    """What the trie of the programs has for an address is what the rules mean."""
    address = ip_address("11.0.0.0") + host
    expected = any(address in n for n in allow) and not any(address in n for n in deny)
    assert (
        RemoteRules(RemoteAddresses(allow=allow, deny=deny)).refusal(str(address), PUBLIC) == ""
    ) is expected


def test_many_prefixes() -> None:
    """The number of prefixes does not show in the number of look-ups."""
    deny = tuple(ip_network((int(ip_address("11.0.0.0")) + 256 * n, 24)) for n in range(1000))
    rules = RemoteAddresses(deny=deny)
    assert len(prefix_flags(rules)) < 1100
    assert RemoteRules(rules).refusal("11.0.3.1", PUBLIC)
