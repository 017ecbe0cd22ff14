# SPDX-License-Identifier: Apache-2.0
"""Middleboxes that change TCP segments on their way."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence

from tests.lab.capture import END, ETH_P_ALL, NOP, SYN
from tests.lab.commands import run
from tests.lab.forge import checksum
from tests.lab.two_hosts import TwoHosts

MPTCP = 30  # the kind of its options


Change = Callable[[bytearray], None]  # of a TCP segment, which keeps its length


def strip_mptcp(tcp: bytearray) -> None:
    """NOPs in place of MPTCP options, unless it is a SYN."""
    i, end = 20, (tcp[12] >> 4) * 4
    while i < end and tcp[i] != END and not tcp[13] & SYN:
        length = 1 if tcp[i] == NOP else tcp[i + 1]
        if tcp[i] == MPTCP:
            tcp[i : i + length] = bytes([NOP] * length)
        i += length


def flip_payload(tcp: bytearray) -> None:
    """Another first byte of data, where there is data."""
    data = (tcp[12] >> 4) * 4
    tcp[data : data + 1] = bytes(byte ^ 255 for byte in tcp[data : data + 1])


def changed(frame: bytes, change: Change) -> bytes:
    """The frame, with a changed TCP segment and its right checksum; IPv4 only."""
    if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_TCP:
        return frame
    packet = bytearray(frame[14 : 14 + int.from_bytes(frame[16:18], "big")])
    at = (packet[0] & 15) * 4
    tcp = packet[at:]
    change(tcp)
    tcp[16:18] = bytes(2)
    pseudo = bytes(packet[12:20]) + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp))
    tcp[16:18] = checksum(pseudo + tcp).to_bytes(2, "big")
    return frame[:14] + bytes(packet[:at] + tcp)


@contextlib.contextmanager
def middlebox(hosts: TwoHosts) -> Iterator[None]:
    """A third link, 10.3.0.1 to 10.3.0.2, through the box."""
    ends = []
    for host, name, ip in ((hosts.client, "box1", "10.3.0.1/24"), (hosts.server, "box2", "10.3.0.2/24")):
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth3", "netns", host.name)
        host.ip("addr", "add", ip, "dev", "eth3")
        host.ip("link", "set", "eth3", "up", "gso_max_segs", "1")
        run("ip", "link", "set", name, "up")
        ends.append(frames_of(name))
    with forwarding(ends, strip_mptcp):
        yield


def frames_of(interface: str) -> socket.socket:
    """A socket that receives and sends the frames of an interface of this namespace."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    end.bind((interface, ETH_P_ALL))
    return end


@contextlib.contextmanager
def forwarding(ends: Sequence[socket.socket], change: Change) -> Iterator[None]:
    """What arrives at one of the two sockets leaves by the other, changed; both are closed at the end."""
    stop = threading.Event()

    def forward() -> None:
        while not stop.is_set():
            for end in select.select(ends, [], [], 0.05)[0]:
                frame, source = end.recvfrom(65536)
                if source[2] != socket.PACKET_OUTGOING:
                    ends[end is ends[0]].send(changed(frame, change))

    thread = threading.Thread(target=forward)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for end in ends:
            end.close()
