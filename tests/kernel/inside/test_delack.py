# SPDX-License-Identifier: Apache-2.0
"""TCP_BPF_DELACK_SEGS: after how many segments a receiver acknowledges.

How near the times come to those without the option is measured by tests/bench/kernel_delack.py: the limits
here only tell a wait for a timer from none, on a machine that does other things, too.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab.delayed_acks import MPTCP4, TCP4, TCP6, Receiver, Transport, message_s, request_s
from tests.lab.sock_ops import SockOpsProgram
from tests.lab.two_hosts import TwoHosts

MSS = TCP4.mss

of_each_transport = pytest.mark.parametrize("transport", [TCP4, TCP6, MPTCP4], ids=["TCP", "IPv6", "MPTCP"])


@pytest.fixture
def transport() -> Transport:
    return TCP4


@pytest.fixture
def receiver(hosts: TwoHosts, transport: Transport) -> Iterator[Receiver]:
    with Receiver(hosts, transport) as receiver:
        receiver.netem("rate", "30mbit", "delay", "20ms")  # so that segments arrive one by one
        yield receiver


def transfers(receiver: Receiver, segments: int) -> list[tuple[int, int]]:
    """Packets that the receiver sent and got, of three transfers, fewest sent first.

    On a busy machine there are fewer, since segments that wait for the reader become one, or more, by
    the timer.
    """
    return sorted(receiver.acks(segments) for _ in range(3))


@of_each_transport
def test_fewer_acks(receiver: Receiver) -> None:
    """With 8, a bulk transfer has less than half of the usual ACKs, with 1 nearly one per segment."""
    usual, _ = transfers(receiver, 0)[-1]
    few, _ = transfers(receiver, 8)[0]
    every, segments = transfers(receiver, 1)[-1]
    print(f"ACKs: usual {usual}, after 8 segments {few}, after each {every} of {segments}")
    assert few < usual / 2
    assert every > usual


def test_acks_while_repairing(receiver: Receiver) -> None:
    """With data out of order the receiver acknowledges as usual: losses are found in time."""
    clean, _ = transfers(receiver, 16)[0]
    receiver.netem("rate", "30mbit", "delay", "20ms", "loss", "3%")
    lossy, _ = transfers(receiver, 16)[-1]
    print(f"ACKs after 16 segments: {clean}, with 3 % loss {lossy}")
    assert lossy > 1.5 * clean


@pytest.mark.parametrize(
    ("value", "result"), [(0, 0), (1, 0), (64, 0), (65, -errno.EINVAL), (-1, -errno.EINVAL)]
)
def test_range(hosts: TwoHosts, value: int, result: int) -> None:
    """0 to 64; bpf_getsockopt() reads what is set."""
    program = SockOpsProgram("delack")
    program.attach(hosts.server.cgroup)
    program.write("segments", 0, struct.pack("=i", value))
    hosts.connect(hosts.listen(protocol=socket.IPPROTO_TCP), protocol=socket.IPPROTO_TCP)
    assert program.integers("results") == [result, 0, value if result == 0 else 0]
    program.detach()


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


def message_times(
    receiver: Receiver, segments: int, parts: list[int], read_after_s: float = 0, *, quick: bool | None
) -> tuple[float, float]:
    """The fastest message without the option and with it; ``quick`` is TCP_QUICKACK, None: as it is."""
    receiver.netem("delay", "2ms")
    pairs = receiver.warmed_up([0, segments])

    def turn() -> list[float]:
        for _, server in pairs:
            if quick is not None:
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, quick)
        return [message_s(ends, parts, read_after_s) for ends in pairs]

    return fastest(turn, turns=30, ratio=1.5)


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
    receiver: Receiver, segments: int, parts: list[int], read_after_s: float
) -> None:
    """A sender whose last part waits for an ACK (Nagle) gets it as soon as without the option."""
    usual, asked = message_times(receiver, segments, parts, read_after_s, quick=True)
    print(f"{parts}: usual {usual * 1000:.2f} ms, {segments} segments {asked * 1000:.2f} ms")
    assert asked < 1.5 * usual


@pytest.mark.parametrize("transport", [TCP6, MPTCP4], ids=["IPv6", "MPTCP"])
@pytest.mark.parametrize("parts", [[100, 400], [MSS, 400], [100, MSS + 500]])
def test_small_writers_of_each_transport(receiver: Receiver, parts: list[int]) -> None:
    """So does one over IPv6, and a subflow of MPTCP."""
    usual, asked = message_times(receiver, 8, parts, quick=None)
    print(f"{parts}: usual {usual * 1000:.2f} ms, 8 segments {asked * 1000:.2f} ms")
    assert asked < 1.5 * usual


@pytest.mark.parametrize("segments", [3, 8, 64])
@pytest.mark.parametrize("parts", [[3 * MSS, 400], [100, MSS + 500], [100, 2 * MSS + 500, 400]])
def test_interactive_receivers(receiver: Receiver, segments: int, parts: list[int]) -> None:
    """Who expects to answer acknowledges more than one segment as soon as without the option."""
    usual, asked = message_times(receiver, segments, parts, quick=False)
    print(f"interactive, {parts}: usual {usual * 1000:.2f} ms, {segments} segments {asked * 1000:.2f} ms")
    assert asked < 1.5 * usual


def test_pauses_are_no_round_trips(receiver: Receiver) -> None:
    """A receiver of messages with pauses measures a long round trip: no sender waits for a part of it."""
    receiver.netem("delay", "190ms")
    pairs = receiver.warmed_up([0, 8], pause_s=0.19)

    def turn() -> list[float]:
        time.sleep(0.19)
        return [message_s(ends, [100, 400]) for ends in pairs]

    usual, asked = fastest(turn, turns=20, ratio=2)
    print(f"with pauses: usual {usual * 1000:.2f} ms, 8 segments {asked * 1000:.2f} ms")
    assert asked < 2 * usual


@of_each_transport
@pytest.mark.parametrize("pause_s", [0, 0.02])
def test_requests_and_answers(receiver: Receiver, transport: Transport, pause_s: float) -> None:
    """A request whose end waits for an ACK: the server, which measures the client's pauses, does not."""
    receiver.netem("delay", "1ms")
    pairs = receiver.warmed_up([0, 8], delay="1ms")

    def turn() -> list[float]:
        time.sleep(pause_s)
        return [request_s(ends, [transport.mss + 500, 400]) for ends in pairs]

    for _ in range(30):
        turn()
    usual, asked = fastest(turn, turns=60, ratio=1.15)
    print(f"requests after {pause_s} s: usual {usual * 1000:.2f} ms, 8 segments {asked * 1000:.2f} ms")
    assert asked < 1.15 * usual


@of_each_transport
@pytest.mark.parametrize("segments", [8, 64])
def test_slow_start_keeps_its_pace(receiver: Receiver, segments: int) -> None:
    """100 kB over a long path: the window grows as without the option."""
    receiver.netem("delay", "40ms")
    usual, asked = fastest(lambda: [receiver.start_s(n) for n in (0, segments)], turns=20, ratio=1.15)
    print(f"100 kB: usual {usual * 1000:.1f} ms, {segments} segments {asked * 1000:.1f} ms")
    assert asked < 1.15 * usual
