# SPDX-License-Identifier: Apache-2.0
"""Forged RTM_NEWLINK messages: kinds of interfaces that the kernel of a test machine may not have."""

from __future__ import annotations

import socket
import struct

import pytest

from pm.linux.netlink import framing, rtnetlink
from pm.linux.netlink.address_rules import judge
from pm.linux.netlink.link_kinds import dead_ends
from pm.linux.netlink.rtnetlink import AddressKey, Link, read_link
from pm.policies.model import Addresses

UP = rtnetlink.IFF_UP | rtnetlink.IFF_RUNNING | rtnetlink.IFF_LOWER_UP


def u32(value: int) -> bytes:
    return struct.pack("=I", value)


def new_link(
    ifindex: int, name: str, kind: str = "", *, master: int = 0, lower: int = 0, netnsid: int | None = None
) -> bytes:
    """RTM_NEWLINK with the attributes that matter, and others around them, as the kernel packs it."""
    attributes = [framing.pack_attribute(rtnetlink.IFLA_IFNAME, name.encode() + b"\0")]
    attributes.append(framing.pack_attribute(4, u32(1500)))
    if lower:
        attributes.append(framing.pack_attribute(rtnetlink.IFLA_LINK, u32(lower)))
    if master:
        attributes.append(framing.pack_attribute(rtnetlink.IFLA_MASTER, u32(master)))
    if kind:
        info = [
            framing.pack_attribute(rtnetlink.IFLA_INFO_KIND, kind.encode() + b"\0"),
            framing.pack_attribute(2, b"\x08\0\x01\0\x01\0\0\0"),
            framing.pack_attribute(4, b"bridge\0"),
        ]
        attributes.append(framing.pack_nested(rtnetlink.IFLA_LINKINFO, *info))
    if netnsid is not None:
        attributes.append(framing.pack_attribute(rtnetlink.IFLA_LINK_NETNSID, u32(netnsid)))
    header = rtnetlink.IFINFOMSG.pack(socket.AF_UNSPEC, 1, ifindex, UP, 0)
    return framing.pack(rtnetlink.RTM_NEWLINK, 0, 0, header + b"".join(attributes))


def links_of(*messages: bytes) -> dict[int, Link]:
    links = {}
    for data in messages:
        (message,) = framing.messages(data)
        link = read_link(data, message)
        assert link is not None
        links[link.ifindex] = link
    return links


def reasons(*messages: bytes) -> dict[str, str]:
    """By name, why an interface is no path of its own."""
    links = links_of(*messages)
    return {links[ifindex].name: why for ifindex, why in dead_ends(links).items()}


def test_what_a_message_says_is_read() -> None:
    """Name, kind, master and lower interface; a lower interface of another namespace is none."""
    assert links_of(
        new_link(2, "eth0"),
        new_link(3, "eth0.5", "vlan", master=9, lower=2),
        new_link(4, "eth1", "veth", lower=7, netnsid=0),
    ) == {
        2: Link("eth0", UP, 2),
        3: Link("eth0.5", UP, 3, "vlan", 9, 2),
        4: Link("eth1", UP, 4, "veth"),
    }


@pytest.mark.parametrize(
    "kind",
    [
        *("tun", "wireguard", "ovpn", "ipip", "sit", "gre", "gretap", "ip6tnl", "ip6gre", "ip6gretap"),
        *("erspan", "ip6erspan", "vti", "vti6", "xfrm", "vxlan", "geneve", "gtp", "bareudp", "amt"),
    ],
)
def test_a_tunnel_is_no_path_of_its_own(kind: str) -> None:
    """Its packets travel over another interface; a vlan or macvlan on it is as bad."""
    assert reasons(new_link(2, "t0", kind), new_link(3, "t0.5", "vlan", lower=2), new_link(4, "eth0")) == {
        "t0": f"tunnel ({kind})",
        "t0.5": f"vlan over t0: tunnel ({kind})",
    }


@pytest.mark.parametrize("kind", ["dummy", "ifb", "vrf"])
def test_what_holds_addresses_only_is_no_path(kind: str) -> None:
    """kube-ipvs0 and a VRF's own device carry nothing; the VRF's ports stay paths."""
    links = [new_link(2, "h0", kind), new_link(3, "eth0", master=2)]
    assert reasons(*links) == {"h0": f"{kind} interface: no packet leaves over it"}


@pytest.mark.parametrize(
    "kind",
    ["", "veth", "netkit", "bond", "team", "vlan", "macvlan", "ipvlan", "ppp", "wwan", "rmnet", "macsec"],
)
def test_what_can_be_a_path_is_one(kind: str) -> None:
    """Hardware, links over it, modems, and a container's own interface, whose other end is elsewhere."""
    assert reasons(new_link(2, "eth0"), new_link(3, "x0", kind, lower=2)) == {}
    assert reasons(new_link(3, "x0", kind, lower=7, netnsid=0)) == {}


@pytest.mark.parametrize("kind", ["veth", "netkit", "tun", "vxlan", "gretap", "dummy"])
def test_a_bridge_of_virtual_ports_has_no_uplink(kind: str) -> None:
    """docker0, virbr0, cni0: nothing, containers or virtual machines behind them."""
    assert reasons(new_link(2, "br0", "bridge"))["br0"] == "bridge without an uplink"
    assert (
        reasons(new_link(2, "br0", "bridge"), new_link(3, "p0", kind, master=2))["br0"]
        == "bridge without an uplink"
    )
    stacked = [
        new_link(2, "br0", "bridge"),
        new_link(3, "p0", kind),
        new_link(4, "p0.5", "vlan", master=2, lower=3),
    ]
    assert reasons(*stacked)["br0"] == "bridge without an uplink"
    over = [new_link(2, "br0", "bridge"), new_link(5, "br0.7", "vlan", lower=2)]
    assert reasons(*over)["br0.7"] == "vlan over br0: bridge without an uplink"


@pytest.mark.parametrize("kind", ["", "bond", "team", "vlan", "macvlan", "wwan"])
def test_a_bridge_with_an_uplink_is_a_path(kind: str) -> None:
    """Hardware, or a link over it, among the ports is enough; what stands on the bridge is a path too."""
    links = [
        new_link(2, "br0", "bridge"),
        new_link(3, "veth7", "veth", master=2, lower=8, netnsid=1),
        new_link(4, "eth0"),
        new_link(5, "port", kind, master=2, lower=4 if kind in ("vlan", "macvlan") else 0),
        new_link(6, "br0.7", "vlan", lower=2),
    ]
    assert reasons(*links) == {}


def test_an_event_of_the_radio_says_nothing_of_the_link() -> None:
    """A scan's RTM_NEWLINK has the name only: a port of a bridge would seem to have left it."""
    header = rtnetlink.IFINFOMSG.pack(socket.AF_UNSPEC, 1, 3, UP, 0)
    name = framing.pack_attribute(rtnetlink.IFLA_IFNAME, b"wlan0\0")
    radio = framing.pack_attribute(rtnetlink.IFLA_WIRELESS, bytes(8))
    data = framing.pack(rtnetlink.RTM_NEWLINK, 0, 0, header + name + radio)
    (message,) = framing.messages(data)
    assert read_link(data, message) is None


def test_a_ring_of_lower_interfaces_ends() -> None:
    """Messages that contradict each other, as during a renumbering, do not hang the service."""
    assert reasons(new_link(2, "a", "vlan", lower=3), new_link(3, "b", "vlan", lower=2)) == {}


@pytest.mark.parametrize(
    ("include", "usable"),
    [
        (("*",), False),
        (("**",), False),
        (("*", "eth*"), False),
        (("*", "wg0"), True),
        (("wg*",), True),
        (("?g*",), True),
    ],
)
def test_an_entry_of_include_that_names_a_tunnel_admits_it(include: tuple[str, ...], usable: bool) -> None:
    """Anything but asterisks names it; until then the address is up, and says why it is not usable."""
    key = AddressKey(2, "10.6.0.2", 24, "10.6.0.2")
    address = judge(key, 0x80, Link("wg0", UP), Addresses(include=include), "tunnel (wireguard)")
    assert (address.usable, address.up) == (usable, True)
    why = "tunnel (wireguard), and no entry of addresses.include but * matches"
    assert address.why == ("usable" if usable else why)


def test_exclude_wins_over_a_name_in_include() -> None:
    """The reason is then the administrator's own."""
    key = AddressKey(2, "10.6.0.2", 24, "10.6.0.2")
    rules = Addresses(include=("wg0",), exclude=("wg*",))
    address = judge(key, 0x80, Link("wg0", UP), rules, "tunnel (wireguard)")
    assert address.why == "interface matches addresses.exclude"
