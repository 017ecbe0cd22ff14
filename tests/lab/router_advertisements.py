# SPDX-License-Identifier: Apache-2.0
"""Router advertisements (RFC 4861, section 4.2) of the lab's router, as radvd sends them."""

from __future__ import annotations

import json
import socket
import struct
from ipaddress import IPv6Network

from tests.lab.lab import Lab
from tests.lab.netns import inside

ROUTER_ADVERTISEMENT, PREFIX_INFORMATION = 134, 3
ON_LINK_AND_AUTONOMOUS = 0xC0
ALL_NODES = "ff02::1"


def advertise(lab: Lab, link: int, *, lifetime_s: int, prefix: str = "", preferred_s: int = 3600) -> None:
    """Once, to all hosts on a link: a default route (``lifetime_s`` 0: none any more), and a prefix."""
    packet = struct.pack("!BBHBBHII", ROUTER_ADVERTISEMENT, 0, 0, 64, 0, lifetime_s, 0, 0)
    if prefix:
        network = IPv6Network(prefix)
        packet += struct.pack(
            "!BBBBIII16s",
            *(PREFIX_INFORMATION, 4, network.prefixlen, ON_LINK_AND_AUTONOMOUS),
            *(7200, preferred_s, 0, network.network_address.packed),
        )

    def send() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
            interface = socket.if_nametoindex(f"br{link}")
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface)
            # Hosts ignore what a router on the way could have forwarded.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            sock.sendto(packet, (ALL_NODES, 0, 0, interface))

    inside(lab.netns("net"), send)


def link_local(lab: Lab, ns: str, interface: str) -> str:
    """The link-local address of an interface; "" while it has none."""
    shown = json.loads(lab.ip(ns, "-j", "-6", "addr", "show", "dev", interface, "scope", "link"))
    return next((a["local"] for found in shown for a in found.get("addr_info", ()) if "local" in a), "")
