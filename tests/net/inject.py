# SPDX-License-Identifier: GPL-2.0-only
"""Packets of a living connection forged with options of one's own choice."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from tests.net.inside import inside

ETH_P_ALL, ETH_HEADER, IP_HEADER = 3, 14, 20


class Template(NamedTuple):
    """The last IPv4 packet from a client: Ethernet and IP header, ports, the sequence numbers that follow."""

    ethernet: bytes
    source: bytes
    destination: bytes
    ports: bytes
    sequence: int
    acknowledgement: int


def observe(netns: str, ports: list[int], act: Callable[[], object]) -> Template:
    """What the namespace's eth0 sent from ports[0] to ports[1], last, while ``act()`` ran."""

    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.bind(("eth0", ETH_P_ALL))
        sock.settimeout(0.2)
        return sock

    with inside(netns, opened) as sock:
        act()
        template = None
        while True:
            try:
                frame = sock.recv(1 << 16)
            except TimeoutError:
                assert template, "no packet seen"
                return template
            ip = frame[ETH_HEADER:]
            if frame[12:14] != b"\x08\x00" or ip[9] != socket.IPPROTO_TCP:
                continue
            tcp = ip[IP_HEADER : struct.unpack_from("!H", ip, 2)[0]]
            if list(struct.unpack_from("!HH", tcp)) != ports:
                continue
            sequence, acknowledgement = struct.unpack_from("!II", tcp, 4)
            payload = len(tcp) - (tcp[12] >> 4) * 4
            template = Template(
                frame[:ETH_HEADER], ip[12:16], ip[16:20], tcp[:4], sequence + payload, acknowledgement
            )


def inject(netns: str, template: Template, options: bytes) -> None:
    """Send an acknowledgement without data that has these options (at most 40 bytes, padded with NOPs)."""
    options += b"\x01" * (-len(options) % 4)
    tcp = bytearray(
        template.ports
        + struct.pack(
            "!IIBBHHH",
            template.sequence & 0xFFFFFFFF,
            template.acknowledgement,
            (5 + len(options) // 4) << 4,
            0x10,
            512,
            0,
            0,
        )
        + options
    )
    pseudo = template.source + template.destination + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp))
    struct.pack_into("!H", tcp, 16, _checksum(pseudo + tcp))
    ip = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, IP_HEADER + len(tcp), 0, 0, 64, socket.IPPROTO_TCP, 0))
    ip += template.source + template.destination
    struct.pack_into("!H", ip, 10, _checksum(ip))

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind(("eth0", 0))
            sock.send(template.ethernet + ip + tcp)

    inside(netns, send)


def _checksum(data: bytes | bytearray) -> int:
    """RFC 1071; of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
