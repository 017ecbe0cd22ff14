# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pm.linux.netlink.address_choice import Judged, one_interface_each, one_per_prefix
from pm.linux.netlink.rtnetlink import IFA_F_TEMPORARY, AddressKey
from pm.model import LocalAddress, interfaces_of

STABLE, TEMPORARY = "2001:db8::1", "2001:db8::7ac1"


def judged(
    prefix: str, ifindex: int = 2, flags: int = 0, *, usable: bool = True, peer: str = "", up: bool = True
) -> Judged:
    ip, prefix_len = prefix.split("/")
    address = LocalAddress(ip, int(prefix_len), ifindex, f"eth{ifindex}", usable, False, "as judged", up)
    return Judged(AddressKey(ifindex, ip, int(prefix_len), peer or ip), flags, address)


def usable(*entries: Judged, source_of: Callable[[int, str], str] = lambda ifindex, to: "") -> list[str]:
    return [address.ip for address in one_per_prefix(entries, source_of) if address.usable]


@pytest.mark.parametrize("answer", [STABLE, TEMPORARY])
def test_the_source_that_the_kernel_takes_stays_usable(answer: str) -> None:
    """Stable or temporary: as ``use_tempaddr`` says. The other one is up, and says which one is used."""
    entries = [judged(f"{STABLE}/64"), judged(f"{TEMPORARY}/64", flags=IFA_F_TEMPORARY)]
    found = {a.ip: a for a in one_per_prefix(entries, lambda ifindex, to: answer)}
    assert found.pop(answer).why == "as judged"
    (other,) = found.values()
    assert (other.usable, other.up) == (False, True)
    assert other.why == f"{answer} is used of 2001:db8::/64, and addresses.all is false"


def test_a_prefix_that_the_kernel_does_not_choose_from_is_asked_about_itself() -> None:
    """A connection to somewhere else has one source; the other prefixes answer for a neighbour of theirs."""
    entries = [judged("2001:db8:1::1/64"), judged("2001:db8:1::2/64")]
    entries += [judged("2001:db8:2::1/64"), judged("2001:db8:2::2/64")]

    def source_of(ifindex: int, to: str) -> str:
        return "2001:db8:2::2" if ip_address(to) in ip_network("2001:db8:2::/64") else "2001:db8:1::1"

    assert usable(*entries, source_of=source_of) == ["2001:db8:1::1", "2001:db8:2::2"]


def test_without_an_answer_the_temporary_address_or_the_first_is_taken() -> None:
    """Nothing is shown that privacy extensions hide."""
    assert usable(judged(f"{STABLE}/64"), judged(f"{TEMPORARY}/64", flags=IFA_F_TEMPORARY)) == [TEMPORARY]
    assert usable(judged("192.0.2.1/24"), judged("192.0.2.2/24", flags=IFA_F_TEMPORARY)) == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("prefixes", "wanted"),
    [
        (["192.0.2.1/24", "192.0.2.200/32"], 1),
        (["2001:db8::1/64", "2001:db8::77/128"], 1),
        (["2001:db8::77/128", "2001:db8::78/128"], 2),
        (["10.1.1.1/8", "10.2.2.2/24"], 2),
        (["192.0.2.1/24", "198.51.100.1/24", "2001:db8::1/64", "2001:db8:1::1/64"], 4),
        (["192.0.2.0/31", "192.0.2.1/31"], 1),
    ],
)
def test_a_host_prefix_belongs_to_the_one_around_it(prefixes: list[str], wanted: int) -> None:
    """DHCPv6's /128 and a VIP's /32 are on the link of the others; two subnets are two."""
    assert len(usable(*map(judged, prefixes))) == wanted


def test_the_prefix_of_a_point_to_point_address_is_the_peers() -> None:
    """``192.0.2.1 peer 198.51.100.1/32``: two peers are two networks, one peer is one."""
    first, second = (judged(f"192.0.2.{i}/32", peer="198.51.100.1") for i in (1, 2))
    assert usable(first, second) == ["192.0.2.1"]
    assert len(usable(first, judged("192.0.2.2/32", peer="198.51.100.2"))) == 2


def test_interfaces_have_one_each_and_unusable_addresses_do_not_count() -> None:
    """Two interfaces in one subnet are two paths; a deprecated address takes no place."""
    entries = [judged("192.0.2.1/24", usable=False), judged("192.0.2.2/24"), judged("192.0.2.3/24", 3)]
    assert usable(*entries) == ["192.0.2.2", "192.0.2.3"]


def test_an_address_of_two_interfaces_is_one() -> None:
    """It stays usable where it is usable first; link-local addresses are other ones on each link."""
    entries = [
        judged("192.0.2.1/24", 2, usable=False),
        judged("192.0.2.1/24", 3),
        judged("192.0.2.1/24", 4),
        judged("fe80::1/64", 3),
        judged("fe80::1/64", 4),
        judged("169.254.0.1/16", 3),
        judged("169.254.0.1/16", 4),
    ]
    found = one_interface_each(entry.address for entry in entries)
    assert [address.usable for address in found] == [False, True, False, True, True, True, False]
    assert (found[2].up, found[2].why) == (True, "the same address is used on eth3")
    assert interfaces_of(found)["192.0.2.1"] == 3


def test_the_interface_of_an_address_is_where_it_can_be_used() -> None:
    """Else where it is up, else the first that has it."""
    down, up = judged("192.0.2.1/24", 2, usable=False, up=False), judged("192.0.2.1/24", 3, usable=False)
    assert interfaces_of(entry.address for entry in (down, up)) == {"192.0.2.1": 3}
    assert interfaces_of(entry.address for entry in (up, down)) == {"192.0.2.1": 3}
    assert interfaces_of([down.address]) == {"192.0.2.1": 2}
    also_up = judged("192.0.2.1/24", 4, usable=False)
    assert interfaces_of(entry.address for entry in (down, up, also_up)) == {"192.0.2.1": 3}


PREFIXES = st.builds(
    lambda network, host, length: f"{ip_address(int(ip_network(network).network_address) + host)}/{length}",
    st.sampled_from(["10.0.0.0/28", "10.0.1.0/28"]),
    st.integers(0, 15),
    st.sampled_from([28, 31, 32]),
)


FOUND = st.lists(
    st.tuples(PREFIXES, st.integers(2, 4), st.booleans()),
    max_size=12,
    unique_by=lambda found: (found[0].split("/")[0], found[1]),
)


@given(FOUND, st.data())
def test_of_each_prefix_one_address_stays(found: list[tuple[str, int, bool]], data: st.DataObject) -> None:
    """Whatever the kernel answers: exactly one of each interface and prefix, never one that was not usable;
    nothing is lost, nothing but ``usable`` and ``why`` changes, and the second time changes nothing.
    """
    entries = [judged(prefix, ifindex, usable=is_usable) for prefix, ifindex, is_usable in found]
    ips = [entry.key.ip for entry in entries]
    answers = data.draw(st.dictionaries(st.integers(2, 4), st.sampled_from(ips or [""])))

    def source_of(ifindex: int, to: str) -> str:
        assert to not in ips
        return answers.get(ifindex, "")

    chosen = one_per_prefix(entries, source_of)
    assert [(a.ip, a.ifindex, a.up) for a in chosen] == [(e.key.ip, e.key.ifindex, True) for e in entries]
    again = [Judged(e.key, e.flags, a) for e, a in zip(entries, chosen, strict=True)]
    assert one_per_prefix(again, source_of) == chosen
    for entry, address in zip(entries, chosen, strict=True):
        assert entry.address.usable or not address.usable
    for ifindex in {entry.key.ifindex for entry in entries if entry.address.usable}:
        left = [a for a in chosen if a.usable and a.ifindex == ifindex]
        networks = [ip_network((a.ip, a.prefix_len), strict=False) for a in left]
        assert left
        assert len(set(networks)) == len(networks)
