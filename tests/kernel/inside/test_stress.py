# SPDX-License-Identifier: GPL-2.0-only
"""Many short sessions that end in every way. STRESS_ROUNDS: how many rounds (default 40)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.lab import Host, Lab, run, wait_for
from tests.kernel.programs import Op, Recorder, address

ROUNDS = int(os.environ.get("STRESS_ROUNDS", "40"))
NO_LINGER = struct.pack("ii", 1, 0)


# A socket whose peer went without a word may wait for the kernel's longest timer, of 60 s.
GONE_S = 120


def mptcp_sockets(host: Host) -> int:
    """MPTCP sockets of the namespace."""
    with host.inside():
        lines = Path("/proc/thread-self/net/protocols").read_text().splitlines()
    return sum(int(line.split()[2]) for line in lines if line.startswith("MPTCP"))


def connect(lab: Lab) -> socket.socket:
    sock = lab.client.socket()
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        sock.connect(("10.1.0.2", 5000))
    return sock


def end(sock: socket.socket, how: int) -> None:
    """By close, fastclose, disconnect, or shutdown and close."""
    if how == 1:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    elif how == 2:
        ctypes.CDLL(None).connect(sock.fileno(), bytes(16), 16)
        with contextlib.suppress(OSError):
            sock.connect(("10.1.0.2", 5000))
    elif how == 3:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
    sock.close()


def play(lab: Lab, rounds: int, between: Callable[[int], None] = lambda i: None) -> None:
    choice = random.Random(1)
    for i in range(rounds):
        listener = lab.server.listen("0.0.0.0", 5000)
        listener.setblocking(False)
        clients = [connect(lab) for _ in range(10)]
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


def all_closed(*recorders: Recorder) -> bool:
    return all(r.count(Op.NEW_SESSION) == r.count(Op.CLOSE_SESSION) for r in recorders)


def prepare(lab: Lab, client: Recorder, server: Recorder, *, loss: str) -> None:
    for host in (lab.client, lab.server):
        host.sysctl("net.mptcp.close_timeout", 1)
        host.sysctl("net.ipv4.tcp_orphan_retries", 1)
        host.sysctl("net.ipv4.tcp_retries2", 3)
        host.sysctl("net.ipv4.tcp_fin_timeout", 5)  # where the peer's FIN is lost, and the peer gone
    if loss:
        for name in ("client", "server"):
            run(*f"ip netns exec {name} tc qdisc add dev eth1 root netem loss {loss}".split())
    client.act(0, Op.FULLY_ESTABLISHED, "open", times=2, remaining=1 << 30)
    client.act(1, Op.FULLY_ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"), remaining=1 << 30)
    client.act(2, Op.SUBFLOW_ESTABLISHED, "close", remaining=50)
    server.act(0, Op.FULLY_ESTABLISHED, "open", address("10.2.0.2"), address("10.2.0.1"), remaining=1 << 30)
    server.act(1, Op.SUBFLOW_CLOSED, "open", remaining=50)


@pytest.mark.parametrize("loss", ["", "2%"])
def test_every_new_session_closes(lab: Lab, client: Recorder, server: Recorder, loss: str) -> None:
    """However sessions end, CLOSE_SESSION comes as often as NEW_SESSION, and no socket is left."""
    prepare(lab, client, server, loss=loss)
    play(lab, ROUNDS)
    assert client.count(Op.NEW_SESSION) > ROUNDS
    wait_for("all closed", lambda: all_closed(client, server), 60)
    wait_for("no socket", lambda: mptcp_sockets(lab.client) == mptcp_sockets(lab.server) == 0, GONE_S)


def test_unthrottled(lab: Lab, client: Recorder, server: Recorder) -> None:
    """Programs that open and close in every callback, without rate limit, neither hang nor leak."""
    prepare(lab, client, server, loss="")
    for host in (lab.client, lab.server):
        host.sysctl("net.mptcp.bpf_request_rate", 0)
        host.sysctl("net.mptcp.bpf_max_subflows", 250)
    for recorder in (client, server):
        for index, op in enumerate((Op.SUBFLOW_ESTABLISHED, Op.SUBFLOW_CLOSED, Op.FULLY_ESTABLISHED)):
            recorder.act(index, op, "open", times=2, remaining=1000)
        recorder.act(3, Op.SUBFLOW_ESTABLISHED, "close", remaining=1000)
    play(lab, max(ROUNDS // 4, 3))
    wait_for("all closed", lambda: all_closed(client, server), 60)
    wait_for("no socket", lambda: mptcp_sockets(lab.client) == mptcp_sockets(lab.server) == 0, GONE_S)


def test_programs_come_and_go(lab: Lab, client: Recorder, server: Recorder) -> None:
    """Programs attached and detached under living sessions leave no socket behind."""
    prepare(lab, client, server, loss="1%")

    def toggle(i: int) -> None:
        for recorder, host in ((client, lab.client), (server, lab.server)):
            (recorder.detach if i % 2 == 0 else recorder.attach)(host.cgroup)

    play(lab, ROUNDS // 2 * 2, toggle)
    wait_for("no socket", lambda: mptcp_sockets(lab.client) == mptcp_sockets(lab.server) == 0, GONE_S)


def test_namespace_goes_with_living_sessions(lab: Lab, client: Recorder, server: Recorder) -> None:
    """A namespace deleted under living sessions takes them along, each with its CLOSE_SESSION."""
    prepare(lab, client, server, loss="")
    listener = lab.listen("0.0.0.0")
    ends = [lab.connect(listener) for _ in range(20)]
    listener.close()
    lab.client.ip("link", "del", "eth1")
    lab.client.close()
    for pair in ends:
        for sock in pair:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            sock.close()
    wait_for("all closed", lambda: all_closed(client, server), 60)
    wait_for("no socket", lambda: mptcp_sockets(lab.server) == 0, GONE_S)
