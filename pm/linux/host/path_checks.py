# SPDX-License-Identifier: Apache-2.0
"""Whether a second path can work from here: the interfaces, and by which of them packets leave.

Nothing is sent: the kernel is asked for the route that packets of a subflow would take. All of it is
optional, since which interfaces are to be paths is the administrator's choice.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_interface
from itertools import groupby, islice
from pathlib import Path
from shlex import quote

from pm.errors import KernelRefused
from pm.linux.host.remedies import sysctl_remedy, where_it_runs
from pm.linux.host.system_check import SystemCheck, check
from pm.linux.netlink.path_lookup import Flow, NoRoute, PathLookup
from pm.model import LocalAddress, family_of
from pm.names import read_name, show_name

INTERFACES_MAX = 16
# Prefixes for documentation (RFC 5737, 3849, 9637): they have the route of the Internet, and nobody is there.
ANYWHERE = {4: ("192.0.2.1", "198.51.100.1", "203.0.113.1"), 6: ("2001:db8::1", "3fff::1")}
PORT = 443
IPV6_MTU, ETHERNET_MTU = 1280, 1500
CONF = Path("/proc/sys/net/ipv4/conf")
MTU_PROBING = Path("/proc/sys/net/ipv4/tcp_mtu_probing")
_SIOCGIFMTU = 0x8921
_IFREQ = struct.Struct("16si20x")


def path_checks(
    addresses: Sequence[LocalAddress],
    is_tunnel: Callable[[int], bool],
    remotes: Mapping[int, str] | None = None,
) -> list[SystemCheck]:
    """Checks of the interfaces whose addresses path managers use, or would use if they had a carrier.

    ``remotes`` has the peer to look for, by address family; without it any host of the Internet. Raises
    KernelRefused.
    """
    remotes = remotes or _elsewhere(addresses)
    # Of those that are not up, not the ones that wait for duplicate address detection.
    down = [a for a in addresses if not a.up and a.why.startswith("interface") and not is_tunnel(a.ifindex)]
    wanted = [*(address for address in addresses if address.usable), *down]
    by_interface = groupby(sorted(wanted, key=lambda a: a.ifindex), key=lambda a: a.ifname)
    try:
        with PathLookup.open() as lookup:
            found = [
                check
                for name, its in islice(by_interface, INTERFACES_MAX)
                for check in _interface(name, list(its), _Routes(lookup, is_tunnel, remotes))
            ]
    except OSError as e:
        raise KernelRefused("asking for routes", e.errno or 0) from e
    usable = {address.ifname for address in addresses if address.usable}
    names = ", ".join(sorted(usable)[:INTERFACES_MAX]) or "none"
    remedy = "a second path needs a second interface with an address: `ip address` shows what there is"
    return [check("interfaces", len(usable) > 1, f"with usable addresses: {names}", remedy, False), *found]


def _elsewhere(addresses: Sequence[LocalAddress]) -> dict[int, str]:
    """By family, an address that is on none of our links."""
    links = [ip_interface(f"{address.ip}/{address.prefix_len}").network for address in addresses]
    return {
        family: next((ip for ip in ips if not any(ip_address(ip) in link for link in links)), ips[0])
        for family, ips in ANYWHERE.items()
    }


def _interface(name: str, addresses: list[LocalAddress], routes: _Routes) -> Iterator[SystemCheck]:
    up = [address for address in addresses if address.up]
    remedy = (
        f"connect it, or run `ip link set dev {quote(name)} up`; without it no subflow is opened from there"
    )
    yield check(f"carrier:{name}", bool(up), "there" if up else addresses[0].why, remedy, False)
    if not up:
        return
    yield _mtu(name)
    astray = False
    for address in up:
        if family_of(address.ip) in routes.remotes:
            its, found = routes.source_route(address)
            astray = astray or (its and family_of(address.ip) == 4)
            yield found
    if any(family_of(address.ip) == 4 for address in up):
        yield _rp_filter(name, astray=astray)


class _Routes:
    """Asks by which interface packets of an address leave."""

    def __init__(
        self, lookup: PathLookup, is_tunnel: Callable[[int], bool], remotes: Mapping[int, str]
    ) -> None:
        self.remotes = remotes
        self._lookup = lookup
        self._is_tunnel = is_tunnel

    def source_route(self, address: LocalAddress) -> tuple[bool, SystemCheck]:
        """Whether unbound packets leave by another interface, and what that means."""
        name, ip, ifname = f"source_route:{address.ip}", address.ip, address.ifname
        flow = Flow(ip, self.remotes[family_of(ip)], PORT, 0)
        if address.vrf:
            return False, check(name, True, "in a VRF: only sessions that are bound to it use it", "", False)
        try:
            leaves_by = self._lookup.interface_of(flow)
        except NoRoute as e:
            found = f"no route from it to {flow.remote} ({e}): only what is on its link is reached"
            return False, check(name, False, found, _default_route(ip, ifname), False)
        if leaves_by == address.ifindex:
            return False, check(name, True, f"packets from it leave by {ifname}", "", False)
        other = _name_of(leaves_by)
        if self._is_tunnel(leaves_by):
            found = f"packets from it go into the tunnel {other}, which subflows do not bypass"
            remedy = "`addresses.bind_interface: true` bypasses it, if that is wanted"
            return True, check(name, False, found, remedy, False)
        try:
            self._lookup.try_bound(flow, address.ifindex)
        except NoRoute as e:
            found = f"packets from it leave by {other}, and {ifname} has no route to {flow.remote} ({e})"
            return True, check(name, False, found, _default_route(ip, ifname), False)
        found = f"packets from it leave by {other}: subflows are bound to {ifname} (addresses.bind_interface)"
        return True, check(name, True, found, "", False)


def _default_route(ip: str, ifname: str) -> str:
    via = f"ip -{family_of(ip)} route add default via ROUTER dev {quote(ifname)} metric 1000"
    return f"if there is a router on that link, run `{via}` with its address"


def _rp_filter(name: str, *, astray: bool) -> SystemCheck:
    """The larger of ``all`` and the interface's counts; 1 is strict. ``astray``: answers would be dropped."""
    values = [int(_read(CONF / os.fsdecode(read_name(which)) / "rp_filter") or 0) for which in ("all", name)]
    mode = max(values)
    words = {0: "off", 1: "strict", 2: "loose"}.get(mode, str(mode))
    found = f"{words} (all: {values[0]}, {name}: {values[1]})"
    if mode == 1 and astray:
        found += ": what comes back over it is dropped, since its own packets would leave by another"
    interface = where_it_runs(host=name.replace(".", "/"), container="all")
    remedy = f"{sysctl_remedy(f'net.ipv4.conf.{interface}.rp_filter=2')}, or set `addresses.source_routing`"
    return check(f"rp_filter:{name}", not (mode == 1 and astray), found, remedy, False)


def _mtu(name: str) -> SystemCheck:
    mtu = _mtu_of(name)
    found = f"{mtu} bytes"
    if mtu > ETHERNET_MTU and _read(MTU_PROBING) == "0":
        found += ": where a hop carries less and no ICMP comes back, sysctl net.ipv4.tcp_mtu_probing=1 helps"
    remedy = (
        f"IPv6 needs {IPV6_MTU}: run `ip link set dev {quote(name)} mtu {IPV6_MTU}` if the link carries it"
    )
    return check(f"mtu:{name}", mtu >= IPV6_MTU, found, remedy, False)


def _mtu_of(name: str) -> int:
    """Of an interface of this network namespace (/sys may be that of another). Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, _SIOCGIFMTU, _IFREQ.pack(read_name(name), 0))
    return int(_IFREQ.unpack(answer)[1])


def _name_of(ifindex: int) -> str:
    try:
        return show_name(os.fsencode(socket.if_indextoname(ifindex)))
    except OSError:
        return f"interface {ifindex}"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
