# SPDX-License-Identifier: Apache-2.0
"""The messages of rtnetlink about links and addresses, decoded by hand: pyroute2 takes 20 times as long."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from pm.linux.ip import ip_text
from pm.linux.netlink import framing
from pm.names import show_name

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100

# include/uapi/linux/if.h
IFF_UP, IFF_LOOPBACK, IFF_RUNNING, IFF_LOWER_UP = 0x1, 0x8, 0x40, 0x10000
IFLA_IFNAME, IFLA_LINK, IFLA_MASTER, IFLA_WIRELESS, IFLA_LINKINFO, IFLA_LINK_NETNSID = 3, 5, 10, 11, 18, 37
IFLA_INFO_KIND = 1

# include/uapi/linux/if_addr.h
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_TEMPORARY = IFA_F_SECONDARY = 0x01  # the first on IPv6, the second on IPv4
IFA_F_OPTIMISTIC, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE = 0x04, 0x08, 0x20, 0x40

IFINFOMSG = struct.Struct("=BxHiII")
IFADDRMSG = struct.Struct("=BBBBI")
_U32 = struct.Struct("=I")


class Link(NamedTuple):
    """An interface: its name and IFF_* flags.

    ``kind`` is IFLA_INFO_KIND, "" for hardware; ``master`` the index of the bridge, bond or VRF that it is
    a port of, ``lower`` of the interface below it in this namespace; 0 where there is none.
    """

    name: str
    flags: int
    ifindex: int = 0
    kind: str = ""
    master: int = 0
    lower: int = 0


class AddressKey(NamedTuple):
    """What tells addresses apart: IPv4 allows one address with several prefix lengths or peers."""

    ifindex: int
    ip: str
    prefix_len: int
    peer: str


def read_link(data: bytes, message: framing.NetlinkMessage) -> Link | None:
    """An interface; None where the message is not about the interface itself."""
    family, _, ifindex, flags, _ = IFINFOMSG.unpack_from(data, message.start)
    if family != socket.AF_UNSPEC:
        return None  # AF_BRIDGE: a port joins or leaves its bridge, the link itself lives on
    name = kind = ""
    master = lower = 0
    elsewhere = False
    for type_, start, end in framing.attributes(data, message.start + IFINFOMSG.size, message.end):
        if type_ == IFLA_IFNAME:
            name = _text(data, start, end)
        elif type_ == IFLA_LINKINFO:
            kind = _kind(data, start, end)
        elif type_ == IFLA_MASTER:
            (master,) = _U32.unpack_from(data, start)
        elif type_ == IFLA_LINK:
            (lower,) = _U32.unpack_from(data, start)
        elif type_ == IFLA_LINK_NETNSID:
            elsewhere = True  # the index counts in another namespace
        elif type_ == IFLA_WIRELESS:
            return None  # an event of the radio (wireless_nlevent): it has no kind and no master
    return Link(name, flags, ifindex, kind, master, 0 if elsewhere else lower)


def _kind(data: bytes, start: int, end: int) -> str:
    kinds = (
        _text(data, at, stop) for t, at, stop in framing.attributes(data, start, end) if t == IFLA_INFO_KIND
    )
    return next(kinds, "")


def _text(data: bytes, start: int, end: int) -> str:
    return show_name(data[start:end].rstrip(b"\0"))


def read_address(data: bytes, message: framing.NetlinkMessage) -> tuple[AddressKey, int]:
    """An address and its IFA_F_* flags."""
    _, prefix_len, flags, _, ifindex = IFADDRMSG.unpack_from(data, message.start)
    local = peer = ""
    for type_, start, end in framing.attributes(data, message.start + IFADDRMSG.size, message.end):
        if type_ == IFA_LOCAL:
            local = ip_text(data[start:end])
        elif type_ == IFA_ADDRESS:
            peer = ip_text(data[start:end])
        elif type_ == IFA_FLAGS:
            (flags,) = _U32.unpack_from(data, start)
    # With a peer, IFA_ADDRESS is the peer's; IPv6 has IFA_LOCAL only then.
    return AddressKey(ifindex, local or peer, prefix_len, peer), flags
