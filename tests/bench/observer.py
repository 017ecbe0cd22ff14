# SPDX-License-Identifier: Apache-2.0
"""Delay from ESTABLISHED to the first MP_JOIN SYN of each connection, seen on the wire.

Runs in the client's namespace, outside of every contender, with the kernel's own packet timestamps.
ESTABLISHED is raised while the client's kernel handles the first segment that carries a DATA_ACK
(check_fully_established(), net/mptcp/options.c): the timestamp of that segment is the start. The
MP_JOIN SYN belongs to the connection whose server token it names, and the token is the hash of
the key in the server's SYN-ACK (RFC 8684, 3.1 and 3.2).

Every line on stdin is answered by the delays since the last one: a JSON list of seconds. Between
them the observer sleeps: packets wait in its socket, so that it takes no CPU from the contenders.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800
SO_TIMESTAMPNS, SO_RCVBUFFORCE = 35, 33
PACKET_OUTGOING = 4
SYN, ACK = 0x02, 0x10
OPTION_MPTCP = 30
MP_CAPABLE, MP_JOIN, DSS = 0, 1, 2
DSS_DATA_ACK = 0x01

Flow = tuple[bytes, int, bytes, int]  # client address and port, server address and port


def mptcp_options(segment: bytes) -> Iterator[bytes]:
    """The MPTCP options of a TCP segment, from their kind byte on."""
    options = segment[20 : (segment[12] >> 4) * 4]
    while options and options[0] != 0:
        size = 1 if options[0] == 1 else options[1] if len(options) > 1 else 0
        if size == 0:
            return
        if options[0] == OPTION_MPTCP:
            yield options[:size]
        options = options[size:]


class Connections:
    def __init__(self) -> None:
        self.tokens: dict[Flow, bytes] = {}
        self.established: dict[bytes, float] = {}
        self.delays: list[float] = []

    def packet(self, data: bytes, outgoing: bool, time_s: float) -> None:
        """``data`` from the IPv4 header on."""
        if data[9] != socket.IPPROTO_TCP:
            return
        segment = data[(data[0] & 15) * 4 :]
        ports = struct.unpack_from("!HH", segment)
        flags = segment[13]
        for option in mptcp_options(segment):
            kind = option[2] >> 4
            if outgoing:
                if kind == MP_JOIN and flags & (SYN | ACK) == SYN:
                    # Only the first: a second MP_JOIN finds no start.
                    start = self.established.pop(option[4:8], None)
                    if start is not None:
                        self.delays.append(time_s - start)
                continue
            flow = (data[16:20], ports[1], data[12:16], ports[0])
            if kind == MP_CAPABLE and flags & SYN:
                self.tokens[flow] = hashlib.sha256(option[4:12]).digest()[:4]
            elif kind == DSS and option[3] & DSS_DATA_ACK and flow in self.tokens:
                self.established[self.tokens.pop(flow)] = time_s


def main() -> None:
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    packets.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    packets.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
    packets.setblocking(False)
    connections = Connections()
    print("ready", flush=True)
    while sys.stdin.readline():
        for data, ancillary, _, address in received(packets):
            if address[1] == ETH_P_IP:
                seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
                connections.packet(data, address[2] == PACKET_OUTGOING, seconds + nanoseconds * 1e-9)
        print(json.dumps(connections.delays), flush=True)
        connections.delays = []


def received(packets: socket.socket) -> Iterator[Any]:
    """What ``recvmsg`` gives for every packet that waits."""
    while True:
        try:
            yield packets.recvmsg(128, 64)
        except BlockingIOError:
            return


if __name__ == "__main__":
    main()
