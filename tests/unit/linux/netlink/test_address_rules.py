# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import inspect

import pytest

from pm.config.reference import reference_markdown
from pm.linux.netlink import rtnetlink as a
from pm.linux.netlink.address_rules import _cannot_carry, _interface_not_wanted, _not_wanted, admits, judge
from pm.linux.netlink.rtnetlink import AddressKey, Link
from pm.model import LocalAddress
from pm.policies.model import Addresses

UP = a.IFF_UP | a.IFF_RUNNING | a.IFF_LOWER_UP
ETH0 = Link("eth0", UP)
PERMANENT = 0x80


def judged(
    ip: str = "192.0.2.1", flags: int = PERMANENT, link: Link = ETH0, rules: Addresses | None = None
) -> LocalAddress:
    return judge(AddressKey(2, ip, 24, ip), flags, link, rules or Addresses())


@pytest.mark.parametrize("ip", ["192.0.2.1", "2001:db8::1"])
def test_an_address_on_a_running_interface_is_usable(ip: str) -> None:
    """An ordinary address carries its interface, prefix and the verdict "usable"."""
    assert judged(ip) == LocalAddress(
        ip=ip, prefix_len=24, ifindex=2, ifname="eth0", usable=True, backup=False, why="usable", up=True
    )


@pytest.mark.parametrize(
    ("flags", "link", "why"),
    [
        (PERMANENT, Link("eth0", a.IFF_LOWER_UP), "interface is down"),
        (PERMANENT, Link("eth0", a.IFF_UP), "interface has no carrier"),
        (PERMANENT, Link("eth0", a.IFF_UP | a.IFF_LOWER_UP), "interface has no carrier"),
        (a.IFA_F_TENTATIVE, ETH0, "tentative: duplicate address detection is running"),
        (a.IFA_F_TENTATIVE | a.IFA_F_DADFAILED, ETH0, "duplicate address detected"),
        (a.IFA_F_TENTATIVE | a.IFA_F_OPTIMISTIC | a.IFA_F_DADFAILED, ETH0, "duplicate address detected"),
        (a.IFA_F_TENTATIVE | a.IFA_F_OPTIMISTIC, Link("eth0", a.IFF_UP), "interface has no carrier"),
    ],
)
def test_what_cannot_carry_packets_is_not_up(flags: int, link: Link, why: str) -> None:
    """On a link that is down or without carrier, or unverified, an address is neither usable nor up."""
    address = judged("2001:db8::1", flags, link)
    assert (address.usable, address.up, address.why) == (False, False, why)


@pytest.mark.parametrize("kind", [PERMANENT, 0, a.IFA_F_TEMPORARY])
def test_an_optimistic_address_is_usable_while_it_is_tentative(kind: int) -> None:
    """RFC 4429: the kernel lets applications use it during duplicate address detection."""
    address = judged("2001:db8::1", a.IFA_F_OPTIMISTIC | a.IFA_F_TENTATIVE | kind)
    assert (address.usable, address.up, address.why) == (True, True, "usable")


@pytest.mark.parametrize(
    ("ip", "flags", "link", "rules", "why"),
    [
        ("192.0.2.1", PERMANENT, Link("lo", UP | a.IFF_LOOPBACK), {}, "loopback interface"),
        ("127.0.0.2", PERMANENT, ETH0, {}, "loopback address"),
        ("::1", PERMANENT, ETH0, {}, "loopback address"),
        ("224.0.0.9", PERMANENT, ETH0, {}, "multicast address"),
        ("ff02::9", PERMANENT, ETH0, {}, "multicast address"),
        ("0.0.0.0", PERMANENT, ETH0, {}, "unspecified address"),
        ("192.0.2.1", a.IFA_F_DEPRECATED, ETH0, {}, "deprecated: preferred lifetime is over"),
        (
            "192.0.2.1",
            a.IFA_F_DEPRECATED | a.IFA_F_SECONDARY,
            ETH0,
            {},
            "deprecated: preferred lifetime is over",
        ),
        ("2001:db8::1", a.IFA_F_DEPRECATED, ETH0, {}, "deprecated: preferred lifetime is over"),
        ("2001:db8::1", a.IFA_F_DEPRECATED | a.IFA_F_TEMPORARY, ETH0, {}, "temporary address that expired"),
        ("fe80::1", PERMANENT, ETH0, {}, "link-local, and addresses.link_local is false"),
        ("169.254.1.1", PERMANENT, ETH0, {}, "link-local, and addresses.link_local is false"),
        ("192.0.2.1", PERMANENT, ETH0, {"exclude": ("e*",)}, "interface matches addresses.exclude"),
        (
            "192.0.2.1",
            PERMANENT,
            ETH0,
            {"include": ("eth*",), "exclude": ("eth0",)},
            "interface matches addresses.exclude",
        ),
        ("192.0.2.1", PERMANENT, ETH0, {"include": ("wlan*",)}, "interface does not match addresses.include"),
    ],
)
def test_what_is_not_wanted_is_up_and_says_why(
    ip: str, flags: int, link: Link, rules: dict[str, tuple[str, ...]], why: str
) -> None:
    """Loopback, odd, aged and excluded addresses can carry packets, but path managers must not use them."""
    address = judged(ip, flags, link, Addresses(**rules))  # type: ignore[arg-type]
    assert (address.usable, address.up, address.why) == (False, True, why)


def test_interfaces_that_the_rules_admit() -> None:
    """Programs use new addresses on these: whether it is up, and the address itself, is not asked."""
    link, down = Link("eth0", a.IFF_UP), Link("eth1", 0)
    rules = Addresses(include=("eth*",), exclude=("eth1",))
    assert admits(link, rules, "")
    assert not admits(down, rules, "")
    assert admits(down, Addresses(), "")
    assert not admits(link, Addresses(), "a tunnel")
    assert admits(link, rules, "a tunnel"), "it is named"
    assert not admits(Link("lo", a.IFF_LOOPBACK), Addresses(), "")


def test_the_reference_explains_every_reason() -> None:
    """Whoever reads a ``why`` finds it in docs/configuration.md."""
    source = "".join(
        inspect.getsource(function) for function in (_cannot_carry, _not_wanted, _interface_not_wanted)
    )
    literals = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    reasons = [text for text in literals if isinstance(text, str) and " " in text]
    assert len(reasons) == 13
    reference = reference_markdown()
    assert [reason for reason in reasons if reason not in reference] == []


@pytest.mark.parametrize(
    ("ip", "flags"),
    [
        ("192.0.2.1", a.IFA_F_SECONDARY),
        ("2001:db8::1", a.IFA_F_TEMPORARY),
    ],
)
def test_secondary_and_temporary_addresses_are_usable(ip: str, flags: int) -> None:
    """A second IPv4 address of a subnet and a temporary IPv6 address in its preferred lifetime are usable."""
    assert judged(ip, flags).usable


@pytest.mark.parametrize("ip", ["fe80::1", "169.254.1.1"])
def test_link_local_addresses_are_usable_on_request(ip: str) -> None:
    """``link_local: true`` admits both families' link-local addresses."""
    assert judged(ip, rules=Addresses(link_local=True)).usable


def test_the_backup_flag_comes_from_the_interface() -> None:
    """An interface that matches ``backup`` marks its addresses, usable or not."""
    rules = Addresses(backup=("ww*",), exclude=("wwan1",))
    assert judged(link=Link("wwan0", UP), rules=rules).backup
    assert judged(link=Link("wwan1", UP), rules=rules).backup
    assert not judged(rules=rules).backup
