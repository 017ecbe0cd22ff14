# SPDX-License-Identifier: Apache-2.0
"""``python -m pm.linux.netlink.routing_child``: makes the changes that stdin has, by pyroute2.

A process of its own, so that the service need not load the library (docs/decisions/0013-pyroute2.md). It gets
a JSON list of [verb, "rule" or "route", fields], and prints one of those that the kernel refused, in words.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from pm.linux.netlink.routing_tables import RTNH_F_ONLINK
from pm.linux.netlink.source_routes import DEFAULT, PROTOCOL, Route, Rule, family_of_route

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def main() -> None:
    refused = []
    with IPRoute() as kernel:
        for verb, kind, fields in json.load(sys.stdin):
            what = Rule(*fields) if kind == "rule" else Route(*fields)
            try:
                _rule(kernel, verb, what) if isinstance(what, Rule) else _route(kernel, verb, what)
            except NetlinkError as e:
                done = errno.EEXIST if verb == "add" else (errno.ENOENT, errno.ESRCH, errno.ENODEV)
                if e.code not in (done if isinstance(done, tuple) else (done,)):
                    refused.append(f"{verb} {what}: {errno.errorcode.get(e.code, e.code)}")
    json.dump(refused, sys.stdout)


def _rule(kernel: IPRoute, verb: str, rule: Rule) -> None:
    fields: dict[str, Any] = {
        "family": FAMILIES[rule.family],
        "priority": rule.priority,
        "table": rule.table,
        "protocol": PROTOCOL,
    }
    if rule.source:
        fields |= {"src": rule.source, "src_len": 32 if rule.family == 4 else 128}
    else:
        fields["FRA_SUPPRESS_PREFIXLEN"] = 0
    kernel.rule("add" if verb == "add" else "del", **fields)


def _route(kernel: IPRoute, verb: str, route: Route) -> None:
    fields: dict[str, Any] = {
        "family": FAMILIES[route.family],
        "table": route.table,
        "dst": "default" if route.destination == DEFAULT else route.destination,
        "oif": route.ifindex,
        "proto": PROTOCOL,
    }
    if route.gateway and family_of_route(route) != route.family:
        fields["via"] = {"family": FAMILIES[6], "addr": route.gateway}
    elif route.gateway:
        fields["gateway"] = route.gateway
    else:
        fields["scope"] = 253 if route.family == 4 else 0
    if route.onlink:
        fields["flags"] = RTNH_F_ONLINK
    if route.mtu:
        fields["metrics"] = {"mtu": route.mtu}
    kernel.route("replace" if verb == "add" else "del", **fields)


if __name__ == "__main__":
    main()
