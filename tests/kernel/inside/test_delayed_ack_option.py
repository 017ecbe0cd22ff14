# SPDX-License-Identifier: Apache-2.0
"""The option plugin delayed_ack on the patched kernel: its timer, segments per ACK, where neither counts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest

from pm.linux.bpf.objects import SOURCES, BpfObject, compile_object
from pm.linux.bpf.tcp_option_maps import (
    ProgramKey,
    TcpOptionAttachments,
    compiler_flags,
    delayed_ack_least_us,
    read_kernel,
)
from pm.linux.bpf.tcp_option_parameters import policy_entries
from pm.linux.host.probe import probe
from pm.path_managers.choice import PathManagerChoice
from pm.policies.model import Policy
from pm.policies.tcp_options import DelayedAck, DelayedAckRequest, Options, TcpOptions
from tests.lab.capture import SYN, Capture
from tests.lab.delayed_acks import netem, single_segments, transfer
from tests.lab.forge import Puppet
from tests.lab.two_hosts import IPPROTO_MPTCP, Host, TwoHosts, exchange
from tests.lab.waiting import wait_equal

DELAYED_ACK = 3  # its slot
SIZE = 4 << 20
LEAST_US = delayed_ack_least_us()
MOST_US = 200_000
MSS = 1000
OPTION = bytes((253, 6, 0x4D, 0x44, 255, 16))  # four times the minimum RTT, 16 segments
MIN_RTT_AT = 148  # struct tcp_info, tcpi_min_rtt


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> BpfObject:
    log_file = tmp_path_factory.mktemp("compiler") / "log"
    return asyncio.run(compile_object(SOURCES / "options.c", log_file=log_file, cflags=compiler_flags([])))


class Loaded:
    """The option program of a policy on the cgroup of a host."""

    def __init__(self, host: Host, option: DelayedAck, compiled: BpfObject, log_file: Path) -> None:
        self.host = host
        policy = Policy(
            name=host.name,
            cgroup=f"/{host.name}",
            path_manager=PathManagerChoice("none", None),
            options=Options(delayed_ack=option),
        )
        counts = any(check.name == "delack_segments" and check.ok for check in probe())
        with host.inside():
            entries = policy_entries(policy, TcpOptions(), [], read_kernel(counts_segments=counts))
            self.programs = TcpOptionAttachments.open(compiled, bpffs=None, log_file=log_file)
            self.programs.write([entries])
            program = ProgramKey(policy.name, entries.plugins, "")
            self.programs.attach(host.cgroup, host.cgroup.stat().st_ino, program)

    def applied_us(self, sock: socket.socket) -> int | None:
        """The timeout that the socket has from its peer's option."""
        with self.host.inside():
            found = self.programs.records([(sock.getsockname()[1], sock.getpeername()[1])])
        values = [r.value[DELAYED_ACK] for r in found.values() if r.applied & 1 << DELAYED_ACK]
        return values[0] if values else None


Load = Callable[[Host, DelayedAck], Loaded]


@pytest.fixture
def load(compiled: BpfObject, tmp_path: Path) -> Iterator[Load]:
    """``load(host, option)``: the option program on the cgroup of a host."""
    with contextlib.ExitStack() as stack:

        def load(host: Host, option: DelayedAck) -> Loaded:
            loaded = Loaded(host, option, compiled, tmp_path / "verifier.log")
            stack.callback(loaded.programs.close, keep=False)
            return loaded

        yield load


def asks(fraction: float, segments: int = 0) -> DelayedAck:
    return DelayedAck(request=DelayedAckRequest(fraction=fraction, segments=segments))


def acks_of_transfer(hosts: TwoHosts) -> tuple[int, int]:
    """Send SIZE bytes to the server; the numbers of its ACKs and of segments with data, on the wire."""
    listener = hosts.server.listen("10.1.0.2", 5000, protocol=socket.IPPROTO_TCP)
    with Capture("server", "eth1") as capture:
        ends = hosts.connect(listener, protocol=socket.IPPROTO_TCP)
        transfer(ends, SIZE)
        segments = capture.segments()
    for sock in (*ends, listener):
        sock.close()
    acks = sum(s.source[1] == 5000 and not s.payload and not s.flags & SYN for s in segments)
    return acks, sum(s.source[1] != 5000 and s.payload > 0 for s in segments)


def test_segments_per_ack(hosts: TwoHosts, load: Load) -> None:
    """The receiver sends an ACK for as many segments as its peer asks, and for two without the option."""
    single_segments(hosts)
    netem(hosts, "rate", "30mbit", "delay", "20ms")
    usual = max(acks_of_transfer(hosts)[0] for _ in range(3))
    load(hosts.client, asks(3.9, segments=8))
    load(hosts.server, DelayedAck(accept=True))
    few, segments = min(acks_of_transfer(hosts) for _ in range(3))
    print(f"ACKs on the wire: usual {usual}, asked for one per 8 segments {few}, of {segments} segments")
    assert few < usual / 2


@pytest.mark.parametrize(("delay_ms", "fraction"), [(20, 0.25), (60, 0.5), (100, 3.9)])
def test_timeout_over_a_long_path(hosts: TwoHosts, load: Load, delay_ms: int, fraction: float) -> None:
    """The timer is that fraction of the receiver's minimum RTT, within the kernel's limits."""
    netem(hosts, "delay", f"{delay_ms}ms")
    load(hosts.client, asks(fraction))
    receiver = load(hosts.server, DelayedAck(accept=True))
    client, server = hosts.connect(hosts.listen(protocol=socket.IPPROTO_TCP), protocol=socket.IPPROTO_TCP)
    for _ in range(3):
        exchange(client, server)
    info = server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
    (min_rtt_us,) = struct.unpack_from("=I", info, MIN_RTT_AT)
    assert min_rtt_us >= delay_ms * 1000
    expected = min(max(min_rtt_us * int(fraction * 64) // 64, LEAST_US), MOST_US)
    assert receiver.applied_us(server) == expected


@pytest.mark.parametrize("protocol", [socket.IPPROTO_TCP, IPPROTO_MPTCP])
@pytest.mark.parametrize("server_ip", ["10.1.0.2", "fd00:1::2"])
def test_arrives_over_a_lossy_path(hosts: TwoHosts, load: Load, server_ip: str, protocol: int) -> None:
    """A fifth of the client's packets is lost, no two in a row: the option is repeated until it arrives."""
    for sysctl in ("ipv4.neigh.eth1.mcast_solicit", "ipv6.neigh.eth1.mcast_solicit"):
        hosts.client.sysctl(f"net.{sysctl}", 20)  # these are lost, too
    # A lost handshake is a measured round trip of a second or more: with losses in a row, all takes minutes.
    netem(hosts, "loss", "state", "0%", "100%", "0%", "100%", "25%")
    load(hosts.client, asks(0.25))
    receiver = load(hosts.server, DelayedAck(accept=True))
    listener = hosts.listen(server_ip, protocol=protocol)
    for _ in range(3):
        client, server = hosts.connect(listener, server_ip, protocol=protocol)
        for end in (client, server):
            end.settimeout(120)
        for _ in range(5):
            exchange(client, server)
        assert receiver.applied_us(server) == LEAST_US


class Peer:
    """A puppet in the client's namespace, and the server's end of its connection."""

    def __init__(self, hosts: TwoHosts, puppet: Puppet, server: socket.socket) -> None:
        self.hosts, self.puppet, self.server = hosts, puppet, server
        server.setblocking(False)

    def answers_to(self, *ahead: int) -> tuple[int, int]:
        """Send full segments, each that many too early, and have them read: ACKs, and those of the timer."""
        before, by_timer = len(self.puppet.answers()), self.timer_acks()
        for distance in ahead:
            self.puppet.send(bytes(MSS), ahead=distance * MSS)
            self.drain()
        return len(self.puppet.answers()) - before, self.timer_acks() - by_timer

    def settle(self) -> None:
        """Until all is acknowledged: the timer has nothing left to send."""
        wait_equal(lambda: self.puppet.answers()[-1].acknowledgement, self.puppet.sequence)

    def delay_s(self) -> float:
        """Until a segment by itself is acknowledged."""
        before, start = len(self.puppet.answers()), time.monotonic()
        self.puppet.send(bytes(MSS // 2))
        while len(self.puppet.answers()) == before:
            assert time.monotonic() < start + 5, "no ACK"
        delay_s = time.monotonic() - start
        self.drain()
        return delay_s

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.server.recv(1 << 16):
                pass

    def timer_acks(self) -> int:
        return self.hosts.server.counter("DelayedACKs", "TcpExt")


@contextlib.contextmanager
def peer(hosts: TwoHosts, family: int, option: bytes) -> Iterator[Peer]:
    """A client that sends this option in the packet that ends the handshake."""
    local, remote = {4: ("10.1.0.1", "10.1.0.2"), 6: ("fd00:1::1", "fd00:1::2")}[family]
    with (
        hosts.server.listen(remote, protocol=socket.IPPROTO_TCP) as listener,
        Puppet("client", local, (remote, listener.getsockname()[1]), "eth1") as puppet,
    ):
        puppet.connect(ack=option)
        with listener.accept()[0] as server:
            yield Peer(hosts, puppet, server)


def phases(hosts: TwoHosts, family: int, option: bytes) -> dict[str, tuple[int, int]]:
    """What a receiver answers in each phase of a connection."""
    with peer(hosts, family, option) as it:
        found = {"start": it.answers_to(*[0] * 16), "growing": it.answers_to(*[0] * 24)}
        it.settle()
        found["out of order"] = it.answers_to(*range(1, 7))
        found["hole filled"] = it.answers_to(0)
        it.puppet.sequence += 2 * MSS
        found["retransmission"] = it.answers_to(0)
        it.puppet.sequence += 3 * MSS
        found["after the repair"] = it.answers_to(*[0] * 16)
    return found


@pytest.mark.parametrize("family", [4, 6])
def test_usual_acks_where_the_sender_needs_them(hosts: TwoHosts, load: Load, family: int) -> None:
    """While the window grows, out of order, when a hole is filled, for retransmissions: the usual ACKs."""
    load(hosts.server, DelayedAck(accept=True))
    for _ in range(5):
        usual, asked = phases(hosts, family, b""), phases(hosts, family, OPTION)
        if asked == usual and asked["start"] == (16, 0):
            break  # else the machine stood still for once, and the timer sent an ACK
    print(f"as usual: {asked}")
    assert asked == usual
    assert asked["start"] == (16, 0)
    assert asked["out of order"] == (6, 0)


def test_timer(hosts: TwoHosts, load: Load) -> None:
    """A segment that no other follows is acknowledged sooner than without the option."""
    delays = []
    for option in (b"", OPTION):
        with peer(hosts, 4, option) as it:
            it.answers_to(*[0] * 16)
            delays.append(median(it.delay_s() for _ in range(7)))
        load(hosts.server, DelayedAck(accept=True))
    print(f"an ACK after {delays[0] * 1e3:.0f} ms, with the option after {delays[1] * 1e3:.0f} ms")
    assert delays[1] < delays[0]
