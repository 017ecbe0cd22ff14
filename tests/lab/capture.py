# SPDX-License-Identifier: Apache-2.0
"""The packets of an interface in a network namespace, and TCP segments with their options parsed."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from tests.lab.netns import inside

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
SO_RCVBUFFORCE = 33
LINKTYPE_RAW = 101  # packets from the IP header on
SYN, RST, ACK = 0x02, 0x04, 0x10
END, NOP = 0, 1  # the kinds without a length (RFC 9293, 3.1)
TCP_HEADER = 20


class Option(NamedTuple):
    """``value`` is what follows kind and length; empty for a NOP."""

    kind: int
    value: bytes

    @property
    def length(self) -> int:
        """Bytes on the wire."""
        return 1 if self.kind == NOP else 2 + len(self.value)

    def packed(self) -> bytes:
        return bytes((self.kind, self.length)) + self.value


class Segment(NamedTuple):
    """Addresses as (text, port); ``payload`` in bytes; sequence numbers as on the wire."""

    source: tuple[str, int]
    destination: tuple[str, int]
    sequence: int
    acknowledgement: int
    flags: int
    payload: int
    options: tuple[Option, ...]


class Capture:
    """``with Capture(netns) as capture:`` has every packet that one interface sees meanwhile."""

    def __init__(self, netns: str, interface: str = "eth0") -> None:
        def opened() -> socket.socket:
            # Of no protocol until it is bound: nothing of other interfaces is queued.
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
            sock.bind((interface, ETH_P_ALL))
            sock.setblocking(False)
            return sock

        self._sock = inside(netns, opened)
        self._packets: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._sock.close()

    def packets(self) -> list[bytes]:
        """IP packets so far, from their header on, in the order in which the interface had them."""
        while True:
            try:
                data, address = self._sock.recvfrom(1 << 17)
            except BlockingIOError:
                return self._packets
            if address[1] in (ETH_P_IP, ETH_P_IPV6):
                self._packets.append(data)

    def segments(self) -> list[Segment]:
        """TCP segments so far."""
        return [segment for packet in self.packets() if (segment := parse_segment(packet))]

    def write(self, path: Path) -> None:
        """The packets so far as a pcap file."""
        with path.open("wb") as file:
            file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, LINKTYPE_RAW))
            for packet in self.packets():
                file.write(struct.pack("=IIII", 0, 0, len(packet), len(packet)) + packet)


def parse_segment(packet: bytes) -> Segment | None:
    """``packet`` begins with an IPv4 or IPv6 header (without extensions); None where it is not TCP."""
    if packet[0] >> 4 == 4:
        protocol, addresses = packet[9], (packet[12:16], packet[16:20])
        header, end = (packet[0] & 15) * 4, struct.unpack_from("!H", packet, 2)[0]
    else:
        protocol, addresses = packet[6], (packet[8:24], packet[24:40])
        header, end = 40, 40 + struct.unpack_from("!H", packet, 4)[0]
    if protocol != socket.IPPROTO_TCP:
        return None
    segment = packet[header:end]
    source, destination, sequence, acknowledgement = struct.unpack_from("!HHII", segment)
    data = (segment[12] >> 4) * 4
    texts = [str(ipaddress.ip_address(address)) for address in addresses]
    return Segment(
        source=(texts[0], source),
        destination=(texts[1], destination),
        sequence=sequence,
        acknowledgement=acknowledgement,
        flags=segment[13],
        payload=len(segment) - data,
        options=tuple(parse_options(segment[TCP_HEADER:data])),
    )


def parse_options(data: bytes) -> Iterator[Option]:
    """Until the end of the list, or an option whose length cannot be."""
    while data and data[0] != END:
        length = 1 if data[0] == NOP else data[1] if len(data) > 1 else 0
        if length > len(data) or (length < 2 and data[0] != NOP):
            return
        yield Option(data[0], data[2:length])
        data = data[length:]
