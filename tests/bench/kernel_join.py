# SPDX-License-Identifier: Apache-2.0
"""How long until the MP_JOIN, and how many connections per second: program against in-kernel path manager.

``kernel/run -- PYTHON -m tests.bench.kernel_join [SESSIONS]``. Both kinds of session alternate
on one kernel. The delay is that on the wire, from the server's first packet after its SYN-ACK (which
makes the session fully established at the client) to the SYN of the additional subflow.
"""

from __future__ import annotations

import socket
import statistics
import struct
import sys
import time

from tests.lab.recorder import address
from tests.lab.sock_ops import SockOpsProgram
from tests.lab.two_hosts import TwoHosts, exchange

ETH_P_IP = 0x0800
SO_TIMESTAMPNS = 35
SYN, ACK = 0x02, 0x10


class Wire:
    """The TCP packets of eth1 at the client: (time in ns, source port, destination port, flags)."""

    def __init__(self, hosts: TwoHosts) -> None:
        with hosts.client.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self._socket.bind(("eth1", 3))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setblocking(False)

    def packets(self) -> list[tuple[int, int, int, int]]:
        found: list[tuple[int, int, int, int]] = []
        while True:
            try:
                data, control, _, _ = self._socket.recvmsg(2048, 64)
            except BlockingIOError:
                return found
            if data[9] != socket.IPPROTO_TCP:
                continue
            seconds, nanoseconds = struct.unpack_from("=qq", control[0][2])
            tcp = data[(data[0] & 15) * 4 :]
            source, destination = struct.unpack_from("!HH", tcp)
            found.append((seconds * 10**9 + nanoseconds, source, destination, tcp[13]))


def join_delay_us(hosts: TwoHosts, wire: Wire, listener: socket.socket) -> float | None:
    client = hosts.client.socket()
    client.connect(("10.1.0.2", 5000))
    server = listener.accept()[0]
    wire.packets()
    exchange(client, server)
    port, established, join = client.getsockname()[1], 0, 0
    deadline = time.monotonic() + 1
    while not join and time.monotonic() < deadline:
        time.sleep(0.002)  # there is one processor, and the kernel's worker wants it
        for when, source, destination, flags in wire.packets():
            if destination == port and not established and not flags & SYN:
                established = when
            if source != port and flags & (SYN | ACK) == SYN and destination == 5000:
                join = when
    client.close()
    server.close()
    return (join - established) / 1000 if join and established else None


def rate(hosts: TwoHosts, listener: socket.socket, sessions: int) -> float:
    """Sessions per second, each with data both ways."""
    start = time.monotonic()
    for _ in range(sessions):
        client = hosts.client.socket()
        client.connect(("10.1.0.2", 5000))
        server = listener.accept()[0]
        exchange(client, server)
        client.close()
        server.close()
    return sessions / (time.monotonic() - start)


def main(sessions: int) -> None:
    with TwoHosts() as hosts:
        hosts.client.ip("addr", "add", "10.1.0.9/24", "dev", "eth1")
        hosts.client.mptcp("limits", "set", "subflows", "1")
        hosts.client.mptcp("endpoint", "add", "10.1.0.9", "dev", "eth1", "subflow")
        hosts.server.mptcp("limits", "set", "subflows", "1")
        listener = hosts.listen()
        program, silent = SockOpsProgram("bench"), SockOpsProgram("silent")
        program.attach(hosts.client.cgroup)
        wire = Wire(hosts)
        delays: dict[str, list[float]] = {"program": [], "kernel": []}
        for i in range(2 * sessions):
            kind = ("program", "kernel")[i % 2]
            program.write("source", 0, address("10.1.0.9") if kind == "program" else bytes(40))
            if (delay := join_delay_us(hosts, wire, listener)) is not None:
                delays[kind].append(delay)
        program.detach(hosts.client.cgroup)
        for kind, values in delays.items():
            quantiles = statistics.quantiles(values, n=10)
            print(
                f"join {kind}: n={len(values)} median={quantiles[4]:.0f} us,"
                f" p10={quantiles[0]:.0f} p90={quantiles[8]:.0f}"
            )

        hosts.client.mptcp("endpoint", "flush")
        hosts.client.sysctl("net.mptcp.bpf_max_subflows", 0)  # the claim alone
        program.write("source", 0, address("10.1.0.9"))
        rates: dict[str, list[float]] = {"without": [], "silent": [], "claimed": []}
        for _ in range(9):
            for kind, attached in (("without", None), ("silent", silent), ("claimed", program)):
                if attached:
                    attached.attach(hosts.client.cgroup)
                rates[kind].append(rate(hosts, listener, sessions))
                if attached:
                    attached.detach(hosts.client.cgroup)
        for kind, values in rates.items():
            print(
                f"rate {kind}: median={statistics.median(values):.0f}/s {min(values):.0f}..{max(values):.0f}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
