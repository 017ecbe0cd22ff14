# SPDX-License-Identifier: Apache-2.0
"""Messages and transfers to a receiver with TCP_BPF_DELACK_SEGS, between the hosts of two_hosts.py."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

from tests.lab.sock_ops import SockOpsProgram
from tests.lab.two_hosts import TwoHosts, receive

PORT = 5000
SEGMENTS_AT = 136  # struct tcp_info, tcpi_segs_out and tcpi_segs_in

Ends = tuple[socket.socket, socket.socket]
"""The sender's and the receiver's."""


class Transport(NamedTuple):
    """``protocol`` between the addresses of one family; of MPTCP, one subflow."""

    ip: str = "10.1.0.2"
    protocol: int = socket.IPPROTO_TCP

    @property
    def mss(self) -> int:
        """Bytes of a full segment, on links of 1500 bytes; without the DSS option, which MPTCP adds."""
        return 1428 if ":" in self.ip else 1448


TCP4 = Transport()
TCP6 = Transport("fd00:1::2")
MPTCP4 = Transport(protocol=socket.IPPROTO_MPTCP)


class Receiver:
    """``with Receiver(hosts, transport) as receiver:`` its connections go from the client to the server."""

    def __init__(self, hosts: TwoHosts, transport: Transport = TCP4) -> None:
        self.hosts, self.transport = hosts, transport
        self.program = SockOpsProgram("delack")

    def __enter__(self) -> Self:
        self.program.attach(self.hosts.server.cgroup)
        single_segments(self.hosts)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.program.detach()

    def netem(self, *options: str) -> None:
        """``options`` of tc-netem on the way to the receiver."""
        netem(self.hosts, *options)

    def connect(self, segments: int) -> Ends:
        """A connection whose receiver has the option; with 0, it is as usual."""
        self.program.write("segments", 0, struct.pack("=i", segments))
        with contextlib.closing(
            self.hosts.server.listen(self.transport.ip, PORT, protocol=self.transport.protocol)
        ) as listener:
            return self.hosts.connect(listener, self.transport.ip, protocol=self.transport.protocol)

    def warmed_up(self, segments: Sequence[int], delay: str = "2ms", pause_s: float = 0) -> list[Ends]:
        """A connection for each of ``segments``, past its start, on a path that takes ``delay``."""
        ends = [self.connect(number) for number in segments]
        self.netem("delay", delay)
        for _ in range(20):
            time.sleep(pause_s)
            for pair in ends:
                message_s(pair, [20_000])
        return ends

    def start_s(self, segments: int, size: int = 100_000) -> float:
        """How long the first ``size`` bytes of a connection take."""
        ends = self.connect(segments)
        seconds = message_s(ends, [size])
        close(ends)
        return seconds

    def acks(self, segments: int, size: int = 3 << 20) -> tuple[int, int]:
        """Packets that the receiver of ``size`` bytes sent, nearly all of them ACKs, and got."""
        ends = self.connect(segments)
        transfer(ends, size)
        info = ends[1].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
        sent, got = struct.unpack_from("=II", info, SEGMENTS_AT)
        close(ends)
        return sent, got


def netem(hosts: TwoHosts, *options: str) -> None:
    """``options`` of tc-netem on the client's way to the server."""
    hosts.client.run("tc", "qdisc", "replace", "dev", "eth1", "root", "netem", "limit", "10000", *options)


def single_segments(hosts: TwoHosts) -> None:
    """Each packet on that way is one segment."""
    hosts.client.ip("link", "set", "eth1", "gso_max_segs", "1")


def transfer(ends: Ends, size: int) -> None:
    """Send ``size`` bytes, as fast as the receiver reads them; the sender does not block afterwards."""
    sender, receiver = ends
    sender.setblocking(False)
    left, to_send = size, memoryview(bytes(size))
    while left:
        with contextlib.suppress(BlockingIOError):
            to_send = to_send[sender.send(to_send[:65536]) :] if to_send else to_send
        left -= len(receiver.recv(65536))


def close(ends: Ends) -> None:
    for end in ends:
        end.close()


def message_s(ends: Ends, parts: list[int], read_after_s: float = 0) -> float:
    """How long a message takes whose parts are written one by one; the reader may come late."""
    sender, receiver = ends
    began = time.perf_counter()
    for size in parts:
        sender.sendall(bytes(size))
    time.sleep(read_after_s)
    receive(receiver, sum(parts))
    return time.perf_counter() - began


def request_s(ends: Ends, parts: list[int], answer: int = 50) -> float:
    """The same, until its ``answer``, of so many bytes, is there."""
    client, server = ends
    seconds = message_s(ends, parts)
    began = time.perf_counter()
    server.sendall(bytes(answer))
    receive(client, answer)
    return seconds + time.perf_counter() - began
