# SPDX-License-Identifier: Apache-2.0
"""Which source address the kernel takes for a destination, where nobody chose one."""

from __future__ import annotations

from pm.linux.ip import ip_text
from pm.linux.netlink import framing
from pm.linux.netlink.route_lookup import (
    RT_TABLE_UNSPEC,
    RTA_OIF,
    RTM_NEWROUTE,
    RTMSG,
    TABLE_AT,
    U32,
    RouteQuestions,
)

RTA_PREFSRC = 7


class SourceLookup(RouteQuestions):
    def source_of(self, ifindex: int, destination: str) -> str:
        """The source address over an interface (0: any), "" where the kernel has no route or takes none.

        Without RTA_SRC the kernel chooses as for an unbound socket: RFC 6724 with ``use_tempaddr``, or the
        route's ``src``.
        """
        oif = framing.pack_attribute(RTA_OIF, U32.pack(ifindex)) if ifindex else b""
        try:
            data, message = self._ask(destination, oif)
        except OSError:
            return ""  # out of memory, say: the caller has a rule of its own
        return _source(data, message) if message.type == RTM_NEWROUTE else ""


def _source(data: bytes, message: framing.NetlinkMessage) -> str:
    if data[message.start + TABLE_AT] == RT_TABLE_UNSPEC:
        return ""
    for type_, start, end in framing.attributes(data, message.start + RTMSG.size, message.end):
        if type_ == RTA_PREFSRC:
            return ip_text(data[start:end])
    return ""
