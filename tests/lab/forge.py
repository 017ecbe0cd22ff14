# SPDX-License-Identifier: Apache-2.0
"""Packets that no kernel made: forged in a living connection's name, or a client made of nothing else."""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from tests.lab.capture import ACK, SYN, Capture, Segment
from tests.lab.netns import inside
from tests.lab.waiting import wait_for

SO_ATTACH_FILTER = 26
WINDOW = 512
MSS = bytes((2, 4, 1000 >> 8, 1000 & 0xFF))


def observe(netns: str, ports: list[int], act: Callable[[], object]) -> Segment:
    """What the namespace's eth0 sent from ports[0] to ports[1], last, while ``act()`` ran."""
    with Capture(netns) as capture:
        act()
        return [s for s in capture.segments() if [s.source[1], s.destination[1]] == ports][-1]


def inject(netns: str, last: Segment, options: bytes) -> None:
    """Send an acknowledgement without data that follows ``last`` and has these options (at most 40 bytes)."""
    sequence = last.sequence + last.payload
    with raw_socket(netns, last.source[0]) as sock:
        send(sock, build(last.source, last.destination, sequence, last.acknowledgement, options=options))


def build(
    source: tuple[str, int],
    destination: tuple[str, int],
    sequence: int,
    acknowledgement: int,
    *,
    flags: int = ACK,
    options: bytes = b"",
    data: bytes = b"",
) -> bytes:
    """An IP packet; ``options`` are padded with NOPs."""
    options += b"\x01" * (-len(options) % 4)
    words = 5 + len(options) // 4
    tcp = bytearray(
        struct.pack(
            "!HHIIBBHHH",
            *(source[1], destination[1], sequence & 0xFFFFFFFF, acknowledgement & 0xFFFFFFFF),
            *(words << 4, flags, WINDOW, 0, 0),
        )
        + options
        + data
    )
    ends = [ipaddress.ip_address(ip) for ip, _ in (source, destination)]
    addresses = b"".join(end.packed for end in ends)
    pseudo = addresses + struct.pack("!II", len(tcp), socket.IPPROTO_TCP)
    struct.pack_into("!H", tcp, 16, checksum(pseudo + tcp))
    if ends[0].version == 6:
        return struct.pack("!IHBB", 6 << 28, len(tcp), socket.IPPROTO_TCP, 64) + addresses + tcp
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, socket.IPPROTO_TCP, 0)
    return ip + addresses + tcp  # the kernel fills in the checksum


def raw_socket(netns: str, ip: str) -> socket.socket:
    """A socket that sends packets from inside the namespace, of this address's family."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    return inside(netns, lambda: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW))


def send(sock: socket.socket, packet: bytes) -> None:
    """Send a packet as if the namespace's kernel had made it."""
    six = sock.family == socket.AF_INET6
    sock.sendto(packet, (str(ipaddress.ip_address(packet[24:40] if six else packet[16:20])), 0))


class Puppet:
    """A TCP client that sends what it is told to and nothing else; the namespace's kernel keeps out of it.

    ``with Puppet(NETNS, LOCAL, (REMOTE, PORT)) as puppet:``
    """

    def __init__(self, netns: str, local: str, remote: tuple[str, int], interface: str = "eth0") -> None:
        self.netns, self.remote, self.interface = netns, remote, interface
        self._muted = inside(netns, lambda: _muted(local))
        self.local = (local, self._muted.getsockname()[1])
        self.sequence, self.acknowledgement = 1_000_000, 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._muted)
        self._raw = self._stack.enter_context(raw_socket(self.netns, self.local[0]))
        self._capture = self._stack.enter_context(Capture(self.netns, self.interface))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def connect(self, syn: bytes = b"", ack: bytes = b"") -> None:
        """A handshake whose SYN and third packet have these options."""
        self.send(flags=SYN, options=MSS + syn)
        self.sequence += 1
        answer = wait_for(self.answers, "the answer to the SYN")[0]
        self.acknowledgement = answer.sequence + 1
        self.send(options=ack)

    def send(self, data: bytes = b"", *, flags: int = ACK, options: bytes = b"", ahead: int = 0) -> None:
        """A packet; ``ahead``: that many bytes before it are missing, and the next one is not after it."""
        packet = build(
            self.local,
            self.remote,
            self.sequence + ahead,
            self.acknowledgement,
            flags=flags,
            options=options,
            data=data,
        )
        send(self._raw, packet)
        if not ahead:
            self.sequence += len(data)

    def answers(self) -> list[Segment]:
        """What the server has sent so far."""
        return [s for s in self._capture.segments() if s.destination == self.local]


def _muted(local: str) -> socket.socket:
    """A port on which the kernel answers nothing: a listener whose filter drops every packet."""
    sock = socket.socket(socket.AF_INET6 if ":" in local else socket.AF_INET)
    drop = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(drop)))
    sock.bind((local, 0))
    sock.listen()
    return sock


def checksum(data: bytes | bytearray) -> int:
    """RFC 1071, in network order."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
