# SPDX-License-Identifier: Apache-2.0
"""Reads rules and routes: those of the table ``main`` that lead to a link, and those of ours."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

from pm.linux.ip import ip_text
from pm.linux.netlink import framing
from pm.linux.netlink.route_lookup import (
    RTA_DST,
    RTA_OIF,
    RTM_GETROUTE,
    RTMSG,
    RTN_UNICAST,
    U32,
)
from pm.linux.netlink.source_routes import MAIN_TABLE, PROTOCOL, Route, Routing, Rule

RTM_NEWRULE, RTM_GETRULE = 32, 34
RTA_GATEWAY, RTA_PRIORITY, RTA_METRICS, RTA_MULTIPATH, RTA_TABLE, RTA_VIA = 5, 6, 8, 9, 15, 18
RTAX_MTU = 2
FRA_SRC, FRA_PRIORITY, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE, FRA_PROTOCOL = 2, 6, 14, 15, 21
RT_SCOPE_LINK, RTPROT_KERNEL, RTNH_F_ONLINK, RTM_F_CLONED = 253, 2, 4, 0x200
ROUTES_MAX = 10_000
NETLINK_GET_STRICT_CHK = 12  # the kernel filters a dump, Linux 4.20

_NEXTHOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, interface
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def read_main(family: int) -> list[Route]:
    """Default routes and the prefixes of links in ``main``. Raises OSError."""
    found: list[Route] = []
    for data, message in _dump(RTM_GETROUTE, family, table=MAIN_TABLE):
        _, length, _, _, _, protocol, _, kind, flags = RTMSG.unpack_from(data, message.start)
        # Of a full table most are passed over here.
        if kind == RTN_UNICAST and not flags & RTM_F_CLONED and (not length or protocol == RTPROT_KERNEL):
            found += _routes(data, message, family)
    return [route for route in found if not route.destination or not route.gateway]


def read_ours() -> Routing:
    """The rules and routes with our protocol. Raises OSError."""
    rules: set[Rule] = set()
    routes: set[Route] = set()
    for family in _FAMILIES:
        for data, message in _dump(RTM_GETRULE, family):
            if rule := _rule(data, message, family):
                rules.add(rule)
        for data, message in _dump(RTM_GETROUTE, family, protocol=PROTOCOL):
            if RTMSG.unpack_from(data, message.start)[5] == PROTOCOL:
                routes.update(route._replace(metric=0) for route in _routes(data, message, family))
    return Routing(frozenset(rules), frozenset(routes))


def read_over(family: int, ifindex: int) -> list[Route]:
    """The unicast routes over an interface, in every table, at most ROUTES_MAX. Raises OSError."""
    found: list[Route] = []
    oif = framing.pack_attribute(RTA_OIF, U32.pack(ifindex))
    for data, message in _dump(RTM_GETROUTE, family, attributes=oif):
        _, _, _, _, _, _, _, kind, flags = RTMSG.unpack_from(data, message.start)
        if kind == RTN_UNICAST and not flags & RTM_F_CLONED:
            found += (route for route in _routes(data, message, family) if route.ifindex == ifindex)
        if len(found) >= ROUTES_MAX:
            break
    return found


def _dump(
    request: int, family: int, *, table: int = 0, protocol: int = 0, attributes: bytes = b""
) -> Iterator[tuple[bytes, framing.NetlinkMessage]]:
    # struct fib_rule_hdr has the form of struct rtmsg
    header = RTMSG.pack(_FAMILIES[family], 0, 0, 0, table, protocol, 0, 0, 0)
    with framing.open_socket(socket.NETLINK_ROUTE) as sock:
        sock.setsockopt(framing.SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        flags = framing.NLM_F_REQUEST | framing.NLM_F_DUMP
        sock.send(framing.pack(request, flags, 1, header + attributes))
        while True:
            data = sock.recv(64 << 10)
            for message in framing.messages(data):
                if message.type in (framing.NLMSG_DONE, framing.NLMSG_ERROR):
                    code = framing.error_of(data, message)
                    if code and code != errno.ENOENT:  # there is no such table
                        raise OSError(code, "dump refused")
                    return
                yield data, message


def _routes(data: bytes, message: framing.NetlinkMessage, family: int) -> Iterator[Route]:
    """The route once per next hop."""
    _, length, _, _, table, _, _, _, flags = RTMSG.unpack_from(data, message.start)
    destination = gateway = ""
    ifindex = mtu = metric = 0
    hops: list[tuple[int, str, int]] = []
    for type_, start, end in framing.attributes(data, message.start + RTMSG.size, message.end):
        if type_ == RTA_DST:
            destination = f"{ip_text(data[start:end])}/{length}"
        elif type_ == RTA_OIF:
            (ifindex,) = U32.unpack_from(data, start)
        elif type_ == RTA_PRIORITY:
            (metric,) = U32.unpack_from(data, start)
        elif type_ == RTA_TABLE:
            (table,) = U32.unpack_from(data, start)
        elif type_ in (RTA_GATEWAY, RTA_VIA):
            gateway = _gateway(data, type_, start, end)
        elif type_ == RTA_METRICS:
            for metric_type, at, _ in framing.attributes(data, start, end):
                if metric_type == RTAX_MTU:
                    (mtu,) = U32.unpack_from(data, at)
        elif type_ == RTA_MULTIPATH:
            hops += _next_hops(data, start, end)
    for hop, via, hop_flags in hops or [(ifindex, gateway, flags)]:
        onlink = bool(hop_flags & RTNH_F_ONLINK)
        yield Route(family, table, destination, hop, via, onlink, mtu, metric)


def _next_hops(data: bytes, start: int, end: int) -> Iterator[tuple[int, str, int]]:
    while start + _NEXTHOP.size <= end:
        length, flags, _, ifindex = _NEXTHOP.unpack_from(data, start)
        if length < _NEXTHOP.size:
            return
        gateway = ""
        for type_, at, stop in framing.attributes(data, start + _NEXTHOP.size, start + length):
            if type_ in (RTA_GATEWAY, RTA_VIA):
                gateway = _gateway(data, type_, at, stop)
        yield ifindex, gateway, flags
        start += (length + 3) & ~3


def _gateway(data: bytes, type_: int, start: int, end: int) -> str:
    return ip_text(data[start + 2 * (type_ == RTA_VIA) : end])  # RTA_VIA has the family in front


def _rule(data: bytes, message: framing.NetlinkMessage, family: int) -> Rule | None:
    """A rule of ours; None for others."""
    table = RTMSG.unpack_from(data, message.start)[4]
    source, priority, protocol = "", 0, 0
    for type_, start, end in framing.attributes(data, message.start + RTMSG.size, message.end):
        if type_ == FRA_SRC:
            source = ip_text(data[start:end])
        elif type_ == FRA_PRIORITY:
            (priority,) = U32.unpack_from(data, start)
        elif type_ == FRA_TABLE:
            (table,) = U32.unpack_from(data, start)
        elif type_ == FRA_PROTOCOL:
            protocol = data[start]
    return Rule(family, priority, table, source) if protocol == PROTOCOL else None
