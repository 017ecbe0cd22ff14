# SPDX-License-Identifier: Apache-2.0
"""Many short sessions that end in every way. STRESS_ROUNDS: how many rounds (default 40)."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
from collections.abc import Callable

import pytest

from tests.lab.recorder import Op, Recorder, address
from tests.lab.two_hosts import Host, TwoHosts, disconnect
from tests.lab.waiting import wait_equal

ROUNDS = int(os.environ.get("STRESS_ROUNDS", "40"))
NO_LINGER = struct.pack("ii", 1, 0)
# A socket whose peer went without a word may wait for the kernel's longest timer, of 60 s.
GONE_S = 120


def mptcp_sockets(host: Host) -> int:
    """MPTCP sockets of the namespace."""
    return sum(int(line.split()[2]) for line in host.read("protocols") if line.startswith("MPTCP"))


def connect(hosts: TwoHosts) -> socket.socket:
    sock = hosts.client.socket()
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        sock.connect(("10.1.0.2", 5000))
    return sock


def end(sock: socket.socket, how: int) -> None:
    """End a connection by close (0), fastclose (1), disconnect (2), or shutdown and close (3)."""
    if how == 1:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    elif how == 2:
        with contextlib.suppress(OSError):
            disconnect(sock)
        with contextlib.suppress(OSError):
            sock.connect(("10.1.0.2", 5000))
    elif how == 3:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
    sock.close()


def play(hosts: TwoHosts, rounds: int, between: Callable[[int], None] = lambda i: None) -> None:
    choice = random.Random(1)
    for i in range(rounds):
        listener = hosts.server.listen("0.0.0.0", 5000)
        listener.setblocking(False)
        clients = [connect(hosts) for _ in range(10)]
        servers: list[socket.socket] = []
        for step in range(4):
            for sock in clients + servers:
                with contextlib.suppress(OSError):
                    sock.send(b"y" * choice.choice((1, 3000)))
                with contextlib.suppress(OSError):
                    sock.setblocking(False)
                    sock.recv(65536)
            with contextlib.suppress(BlockingIOError):
                while len(servers) < 7:  # three are never accepted
                    servers.append(listener.accept()[0])
            if step == 2:
                between(i)
        mixed = clients + servers
        choice.shuffle(mixed)
        if i % 3 == 0:
            listener.close()
        for sock in mixed:
            end(sock, choice.randrange(4))
        listener.close()


def sessions(*recorders: Recorder) -> list[int]:
    """How many sessions each program saw begin and not end."""
    return [r.count(Op.NEW_SESSION) - r.count(Op.CLOSE_SESSION) for r in recorders]


def prepare(hosts: TwoHosts, client: Recorder, server: Recorder, *, loss: str) -> None:
    for host in (hosts.client, hosts.server):
        host.sysctl("net.mptcp.close_timeout", 1)
        host.sysctl("net.ipv4.tcp_orphan_retries", 1)
        host.sysctl("net.ipv4.tcp_retries2", 3)
        host.sysctl("net.ipv4.tcp_fin_timeout", 5)  # where the peer's FIN is lost, and the peer gone
    if loss:
        for host in (hosts.client, hosts.server):
            host.run("tc", "qdisc", "add", "dev", "eth1", "root", "netem", "loss", loss)
    client.act(0, Op.FULLY_ESTABLISHED, "open", times=2, remaining=1 << 30)
    client.act(1, Op.FULLY_ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"), remaining=1 << 30)
    client.act(2, Op.SUBFLOW_ESTABLISHED, "close", remaining=50)
    server.act(0, Op.FULLY_ESTABLISHED, "open", address("10.2.0.2"), address("10.2.0.1"), remaining=1 << 30)
    server.act(1, Op.SUBFLOW_CLOSED, "open", remaining=50)


@pytest.mark.parametrize("loss", ["", "2%"])
def test_every_new_session_closes(hosts: TwoHosts, client: Recorder, server: Recorder, loss: str) -> None:
    """However sessions end, CLOSE_SESSION comes as often as NEW_SESSION, and no socket is left."""
    prepare(hosts, client, server, loss=loss)
    play(hosts, ROUNDS)
    assert client.count(Op.NEW_SESSION) > ROUNDS
    wait_equal(lambda: sessions(client, server), [0, 0], deadline_s=60)
    wait_equal(lambda: (mptcp_sockets(hosts.client), mptcp_sockets(hosts.server)), (0, 0), deadline_s=GONE_S)


def test_unthrottled(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """Programs that open and close in every callback, without rate limit, neither hang nor leak."""
    prepare(hosts, client, server, loss="")
    for host in (hosts.client, hosts.server):
        host.sysctl("net.mptcp.bpf_request_rate", 0)
        host.sysctl("net.mptcp.bpf_open_rate", 0)
        host.sysctl("net.mptcp.bpf_max_subflows", 250)
    for recorder in (client, server):
        for index, op in enumerate((Op.SUBFLOW_ESTABLISHED, Op.SUBFLOW_CLOSED, Op.FULLY_ESTABLISHED)):
            recorder.act(index, op, "open", times=2, remaining=1000)
        recorder.act(3, Op.SUBFLOW_ESTABLISHED, "close", remaining=1000)
    play(hosts, max(ROUNDS // 4, 3))
    wait_equal(lambda: sessions(client, server), [0, 0], deadline_s=60)
    wait_equal(lambda: (mptcp_sockets(hosts.client), mptcp_sockets(hosts.server)), (0, 0), deadline_s=GONE_S)


def test_programs_come_and_go(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """Programs attached and detached under living sessions leave no socket behind."""
    prepare(hosts, client, server, loss="1%")

    def toggle(i: int) -> None:
        for recorder, host in ((client, hosts.client), (server, hosts.server)):
            (recorder.detach if i % 2 == 0 else recorder.attach)(host.cgroup)

    play(hosts, ROUNDS // 2 * 2, toggle)
    wait_equal(lambda: (mptcp_sockets(hosts.client), mptcp_sockets(hosts.server)), (0, 0), deadline_s=GONE_S)


def test_namespace_goes_with_living_sessions(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """A namespace deleted under living sessions takes them along, each with its CLOSE_SESSION."""
    prepare(hosts, client, server, loss="")
    listener = hosts.listen("0.0.0.0")
    ends = [hosts.connect(listener) for _ in range(20)]
    listener.close()
    hosts.client.ip("link", "del", "eth1")
    hosts.client.close()
    for pair in ends:
        for sock in pair:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            sock.close()
    wait_equal(lambda: sessions(client, server), [0, 0], deadline_s=60)
    wait_equal(lambda: mptcp_sockets(hosts.server), 0, deadline_s=GONE_S)
