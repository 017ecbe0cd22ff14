# SPDX-License-Identifier: Apache-2.0
"""Which metric the routes of each interface have, for path managers that prefer the lowest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pm.linux.netlink import framing
from pm.linux.netlink.address_choice import OUTSIDE
from pm.linux.netlink.route_lookup import (
    RTA_OIF,
    RTM_F_LOOKUP_TABLE,
    RTM_NEWROUTE,
    RTMSG,
    RTN_UNICAST,
    TYPE_AT,
    U32,
    RouteQuestions,
)
from pm.model import LocalAddress

RTA_PRIORITY = 6
RTM_F_FIB_MATCH = 0x2000  # the answer is the route itself, with its metric


class MetricLookup(RouteQuestions):
    def with_metrics(self, addresses: Iterable[LocalAddress]) -> tuple[LocalAddress, ...]:
        """The same with the metrics of now; one question for each interface with usable addresses."""
        known: dict[tuple[int, int], int | None] = {}
        told = []
        for address in addresses:
            metric = None
            if address.usable:
                interface = address.ifindex, address.family
                if interface not in known:
                    known[interface] = self.metric_of(*interface)
                metric = known[interface]
            told.append(address if metric == address.metric else replace(address, metric=metric))
        return tuple(told)

    def metric_of(self, ifindex: int, family: int) -> int | None:
        """The metric of the route to elsewhere over an interface; None where there is none.

        It is asked for without a source: a table of the source alone needs no metrics.
        """
        interface = framing.pack_attribute(RTA_OIF, U32.pack(ifindex))
        try:
            data, message = self._ask(OUTSIDE[family], interface, flags=RTM_F_FIB_MATCH | RTM_F_LOOKUP_TABLE)
        except OSError:
            return None
        if message.type != RTM_NEWROUTE or data[message.start + TYPE_AT] != RTN_UNICAST:
            return None
        for type_, start, _ in framing.attributes(data, message.start + RTMSG.size, message.end):
            if type_ == RTA_PRIORITY:
                return int(U32.unpack_from(data, start)[0])
        return 0
