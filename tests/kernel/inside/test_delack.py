# SPDX-License-Identifier: Apache-2.0
"""TCP_BPF_DELACK_SEGS: after how many segments a receiver acknowledges."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab.sock_ops import SockOpsProgram
from tests.lab.two_hosts import TwoHosts

SIZE = 3 << 20
MSS = 1448
SEGMENTS_AT = 136  # struct tcp_info, tcpi_segs_out and tcpi_segs_in


@pytest.fixture
def delack(hosts: TwoHosts) -> Iterator[SockOpsProgram]:
    program = SockOpsProgram("delack")
    program.attach(hosts.server.cgroup)
    hosts.client.ip("link", "set", "eth1", "gso_max_segs", "1")  # one packet, one segment
    netem(hosts, "rate", "30mbit", "delay", "20ms")  # so that they arrive one by one
    yield program
    program.detach()


def netem(hosts: TwoHosts, *options: str) -> None:
    """``options`` of tc-netem on the client's way to the server."""
    hosts.client.run("tc", "qdisc", "replace", "dev", "eth1", "root", "netem", "limit", "10000", *options)


def transfers(hosts: TwoHosts, program: SockOpsProgram, segments: int) -> list[tuple[int, int]]:
    """Packets that the receiver of SIZE bytes sent and got, of three transfers, fewest sent first.

    On a busy machine there are fewer, since segments that wait for the reader become one, or more, by
    the timer.
    """
    program.write("segments", 0, struct.pack("=i", segments))
    return sorted(transfer(hosts) for _ in range(3))


def transfer(hosts: TwoHosts) -> tuple[int, int]:
    listener = hosts.server.listen("10.1.0.2", 5000, protocol=socket.IPPROTO_TCP)
    client, server = hosts.connect(listener, protocol=socket.IPPROTO_TCP)
    listener.close()
    client.setblocking(False)
    left, to_send = SIZE, memoryview(bytes(SIZE))
    while left:
        with contextlib.suppress(BlockingIOError):
            to_send = to_send[client.send(to_send[:65536]) :] if to_send else to_send
        left -= len(server.recv(65536))
    info = server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
    acks, segs = struct.unpack_from("=II", info, SEGMENTS_AT)
    client.close()
    server.close()
    return acks, segs


def test_fewer_acks(hosts: TwoHosts, delack: SockOpsProgram) -> None:
    """With 8, a bulk transfer has less than half of the usual ACKs, with 1 nearly one per segment."""
    usual, _ = transfers(hosts, delack, 0)[-1]
    few, _ = transfers(hosts, delack, 8)[0]
    every, segments = transfers(hosts, delack, 1)[-1]
    print(f"ACKs: usual {usual}, after 8 segments {few}, after each {every} of {segments}")
    assert few < usual / 2
    assert every > usual


def test_acks_while_repairing(hosts: TwoHosts, delack: SockOpsProgram) -> None:
    """With data out of order the receiver acknowledges as usual: losses are found in time."""
    clean, _ = transfers(hosts, delack, 16)[0]
    netem(hosts, "rate", "30mbit", "delay", "20ms", "loss", "3%")
    lossy, _ = transfers(hosts, delack, 16)[-1]
    print(f"ACKs after 16 segments: {clean}, with 3 % loss {lossy}")
    assert lossy > 1.5 * clean


@pytest.mark.parametrize(
    ("value", "result"), [(0, 0), (1, 0), (64, 0), (65, -errno.EINVAL), (-1, -errno.EINVAL)]
)
def test_range(hosts: TwoHosts, delack: SockOpsProgram, value: int, result: int) -> None:
    """0 to 64; bpf_getsockopt() reads what is set."""
    delack.write("segments", 0, struct.pack("=i", value))
    hosts.connect(hosts.listen(protocol=socket.IPPROTO_TCP), protocol=socket.IPPROTO_TCP)
    assert delack.integers("results") == [result, 0, value if result == 0 else 0]


def connected(hosts: TwoHosts, program: SockOpsProgram, segments: int) -> tuple[socket.socket, socket.socket]:
    """A connection whose receiver has the option."""
    program.write("segments", 0, struct.pack("=i", segments))
    listener = hosts.server.listen("10.1.0.2", 5000, protocol=socket.IPPROTO_TCP)
    client, server = hosts.connect(listener, protocol=socket.IPPROTO_TCP)
    listener.close()
    return client, server


def receive(sock: socket.socket, size: int) -> None:
    while size:
        size -= len(sock.recv(min(size, 65536)))


def message_time(
    client: socket.socket, server: socket.socket, parts: list[int], read_after_s: float
) -> float:
    """How long a message takes whose parts are written one by one; the reader may come late."""
    began = time.perf_counter()
    for size in parts:
        client.sendall(bytes(size))
    time.sleep(read_after_s)
    receive(server, sum(parts))
    return time.perf_counter() - began


def started(
    hosts: TwoHosts, program: SockOpsProgram, segments: int, pause_s: float = 0
) -> list[tuple[socket.socket, socket.socket]]:
    """Two connections past their start, without the option and with it."""
    pairs = [connected(hosts, program, n) for n in (0, segments)]
    netem(hosts, "delay", "2ms")
    for _ in range(20):
        time.sleep(pause_s)
        for pair in pairs:
            message_time(*pair, [20_000], 0)
    return pairs


def fastest(turn: Callable[[], list[float]], *, turns: int, ratio: float) -> tuple[float, float]:
    """The fastest without the option and with it: what other load does is not the option's.

    A turn measures one of each. Turns go on until the second is within ``ratio`` of the first.
    """
    times = []
    for n in range(turns):
        times.append(turn())
        usual, asked = (min(column) for column in zip(*times, strict=True))
        if n >= 5 and asked < ratio * usual:
            break
    return usual, asked


@pytest.mark.parametrize("segments", [3, 8, 64])
@pytest.mark.parametrize(
    ("parts", "read_after_s"),
    [
        pytest.param([100, 400], 0, id="header and body"),
        pytest.param([MSS, 400], 0, id="a segment of one MSS before"),
        pytest.param([2 * MSS, 400], 0, id="two of them"),
        pytest.param([3 * MSS, 400], 0, id="three of them"),
        pytest.param([100, 400], 0.02, id="a late reader"),
        pytest.param([MSS, 400], 0.02, id="a late reader of one MSS"),
        pytest.param([400, 3 * MSS, 400], 0, id="small, large, small"),
        pytest.param([100, MSS + 500], 0, id="a small one, and one with a rest"),
        pytest.param([100, 2 * MSS + 500, 400], 0, id="a rest in the middle"),
    ],
)
def test_small_writers_wait_no_longer(
    hosts: TwoHosts, delack: SockOpsProgram, segments: int, parts: list[int], read_after_s: float
) -> None:
    """A sender whose last part waits for an ACK (Nagle) gets it as soon as without the option."""
    usual, asked = message_times(hosts, delack, segments, parts, read_after_s, quick=1)
    print(f"{parts}: usual {usual * 1000:.2f} ms, {segments} segments {asked * 1000:.2f} ms")
    assert asked < 1.5 * usual


@pytest.mark.parametrize("segments", [3, 8, 64])
@pytest.mark.parametrize("parts", [[3 * MSS, 400], [100, MSS + 500], [100, 2 * MSS + 500, 400]])
def test_interactive_receivers(
    hosts: TwoHosts, delack: SockOpsProgram, segments: int, parts: list[int]
) -> None:
    """Who expects to answer acknowledges more than one segment as soon as without the option."""
    usual, asked = message_times(hosts, delack, segments, parts, 0, quick=0)
    print(f"interactive, {parts}: usual {usual * 1000:.2f} ms, {segments} segments {asked * 1000:.2f} ms")
    assert asked < 1.5 * usual


def message_times(
    hosts: TwoHosts,
    program: SockOpsProgram,
    segments: int,
    parts: list[int],
    read_after_s: float,
    *,
    quick: int,
) -> tuple[float, float]:
    """The fastest message without the option and with it; ``quick`` is the receiver's TCP_QUICKACK."""
    netem(hosts, "delay", "2ms")
    pairs = started(hosts, program, segments)

    def turn() -> list[float]:
        for _, server in pairs:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, quick)
        return [message_time(*pair, parts, read_after_s) for pair in pairs]

    return fastest(turn, turns=30, ratio=1.5)


def test_pauses_are_no_round_trips(hosts: TwoHosts, delack: SockOpsProgram) -> None:
    """A receiver of messages with pauses measures a long round trip: no sender waits for a part of it."""
    netem(hosts, "delay", "190ms")
    pairs = started(hosts, delack, 8, pause_s=0.19)

    def turn() -> list[float]:
        time.sleep(0.19)
        return [message_time(*pair, [100, 400], 0) for pair in pairs]

    usual, asked = fastest(turn, turns=20, ratio=2)
    print(f"with pauses: usual {usual * 1000:.2f} ms, 8 segments {asked * 1000:.2f} ms")
    assert asked < 2 * usual


def first_transfer(hosts: TwoHosts, program: SockOpsProgram, segments: int) -> float:
    """How long the first 100 kB of a connection take."""
    client, server = connected(hosts, program, segments)
    seconds = message_time(client, server, [100_000], 0)
    client.close()
    server.close()
    return seconds


@pytest.mark.parametrize("segments", [8, 64])
def test_slow_start_keeps_its_pace(hosts: TwoHosts, delack: SockOpsProgram, segments: int) -> None:
    """100 kB over a long path: the window grows as without the option."""
    netem(hosts, "delay", "40ms")
    usual, asked = fastest(
        lambda: [first_transfer(hosts, delack, n) for n in (0, segments)], turns=20, ratio=1.15
    )
    print(f"100 kB: usual {usual * 1000:.1f} ms, {segments} segments {asked * 1000:.1f} ms")
    assert asked < 1.15 * usual
