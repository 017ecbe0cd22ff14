# SPDX-License-Identifier: Apache-2.0
"""Which interfaces lead nowhere by themselves: tunnels, bridges without an uplink, and what stands on them.

A tunnel carries its packets over another interface, so a subflow over it is no further path, and one inside
a VPN that itself runs over MPTCP waits for itself. A bridge of containers or virtual machines leads to this
host only. Both are known by IFLA_INFO_KIND. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from pm.linux.netlink.rtnetlink import Link

# tun is also the kind of tap. ppp is missing on purpose: it is the uplink of DSL lines and of modems.
TUNNELS = frozenset(
    {
        "amneziawg",
        "amt",
        "bareudp",
        "erspan",
        "geneve",
        "gre",
        "gretap",
        "gtp",
        "ip6erspan",
        "ip6gre",
        "ip6gretap",
        "ip6tnl",
        "ipip",
        "ovpn",
        "ovpn-dco",
        "ovpn-dco-v2",
        "pfcp",
        "sit",
        "tun",
        "vti",
        "vti6",
        "vxlan",
        "wireguard",
        "xfrm",
    }
)
# No packet leaves the host over them; they hold addresses (kube-ipvs0), or are a VRF's own loopback.
VRF = "vrf"
HOLDERS = frozenset({"dummy", "ifb", VRF})
# One end of a cable within the host. A container's own interface is one too, so it may be used; as the port
# of a bridge it leads to a container.
CABLES = frozenset({"netkit", "veth"})
# Views of another interface: as good as the one below.
STACKED = frozenset({"ipvlan", "ipvtap", "macsec", "macvlan", "macvtap", "vlan"})
# The others appear with modules, unless net.core.fb_tunnels_only_for_init_net is set.
IN_EVERY_NAMESPACE = frozenset(
    ["lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "sit0", "ip6tnl0", "ip6gre0", "ip6_vti0"]
)
MAX_DEPTH = 8  # as many as the kernel stacks (MAX_NEST_DEV)


def dead_ends(links: Mapping[int, Link]) -> dict[int, str]:
    """By interface index: why the interface is no path of its own. Those that are one are missing."""
    bridges_with_uplink = {link.master for link in links.values() if _is_uplink(_lowest(link, links))}
    reasons = {}
    for ifindex, link in links.items():
        lowest = _lowest(link, links)
        if reason := _reason(lowest, bridges_with_uplink):
            reasons[ifindex] = reason if lowest is link else f"{link.kind} over {lowest.name}: {reason}"
    return reasons


def is_tunnel(link: Link, links: Mapping[int, Link]) -> bool:
    """Whether packets over an interface travel over another one, inside a tunnel."""
    return _lowest(link, links).kind in TUNNELS


def vrf_of(link: Link, links: Mapping[int, Link]) -> int:
    """Index of the VRF that an interface is or belongs to, 0 for none."""
    master = link if link.kind == VRF else links.get(link.master)
    return master.ifindex if master and master.kind == VRF else 0


def _lowest(link: Link, links: Mapping[int, Link]) -> Link:
    """The interface that a stack ends at. One whose lower interface is in another namespace is the end."""
    for _ in range(MAX_DEPTH):
        lower = links.get(link.lower) if link.kind in STACKED else None
        if lower is None:
            break
        link = lower
    return link


def _is_uplink(port: Link) -> bool:
    return port.kind not in TUNNELS and port.kind not in HOLDERS and port.kind not in CABLES


def _reason(link: Link, bridges_with_uplink: set[int]) -> str:
    if link.kind in TUNNELS:
        return f"tunnel ({link.kind})"
    if link.kind in HOLDERS:
        return f"{link.kind} interface: no packet leaves over it"
    if link.kind == "bridge" and link.ifindex not in bridges_with_uplink:
        return "bridge without an uplink"
    return ""
