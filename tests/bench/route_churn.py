# SPDX-License-Identifier: Apache-2.0
"""Adds and removes routes at a steady rate until its standard input ends: ``python -m … GATEWAY INTERFACE``.

Each line of input toggles it, beginning with a pause; each is answered with the changes per second that
the kernel took since the last one.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time

from pm.linux.ip import ip_bytes
from pm.linux.netlink import framing
from pm.linux.netlink.route_lookup import RTA_DST, RTA_OIF, RTM_NEWROUTE, RTMSG, RTN_UNICAST, U32
from pm.linux.netlink.routing_tables import RTA_GATEWAY

RTM_DELROUTE = 25
NLM_F_CREATE = 0x400
MAIN, BOOT, UNIVERSE = 254, 3, 0  # table, protocol, scope
RATE, STEP_S = 10_000, 0.01
PER_STEP = int(RATE * STEP_S)
ROUTES = 5_000


def message(type_: int, number: int, gateway: bytes, ifindex: int) -> bytes:
    destination = struct.pack("!I", (11 << 24) + number)
    header = RTMSG.pack(socket.AF_INET, 32, 0, 0, MAIN, BOOT, UNIVERSE, RTN_UNICAST, 0)
    attributes = (
        framing.pack_attribute(RTA_DST, destination),
        framing.pack_attribute(RTA_GATEWAY, gateway),
        framing.pack_attribute(RTA_OIF, U32.pack(ifindex)),
    )
    flags = framing.NLM_F_REQUEST | (NLM_F_CREATE if type_ == RTM_NEWROUTE else 0)
    return framing.pack(type_, flags, number, header + b"".join(attributes))


def main() -> None:
    gateway, ifindex = ip_bytes(sys.argv[1]), socket.if_nametoindex(sys.argv[2])
    steps = [
        b"".join(message(type_, n, gateway, ifindex) for n in range(first, first + PER_STEP))
        for type_ in (RTM_NEWROUTE, RTM_DELROUTE)
        for first in range(0, ROUTES, PER_STEP)
    ]
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN)
    running, sent, at = False, 0, 0
    begin = due = time.monotonic()
    with framing.open_socket(socket.NETLINK_ROUTE) as sock:
        print("ready", flush=True)
        while True:
            wait_ms = max(0.0, 1000 * (due - time.monotonic())) if running else None
            if poll.poll(wait_ms):
                if not sys.stdin.readline():
                    return
                print(round(sent * PER_STEP / (time.monotonic() - begin)), flush=True)
                running, sent = not running, 0
                begin = due = time.monotonic()
            elif running:
                sock.send(steps[at])  # the kernel has changed them when this returns
                at, sent, due = (at + 1) % len(steps), sent + 1, due + STEP_S


if __name__ == "__main__":
    main()
