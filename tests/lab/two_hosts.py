# SPDX-License-Identifier: Apache-2.0
"""Two hosts on two links inside the patched kernel, whose sockets all belong to this process.

A socket keeps the network namespace and the cgroup in which it was made: each host makes its own, and
neither other processes (as in lab.py) nor threads are needed.

Link N (1 or 2): 10.N.0.1 and fd00:N::1 at the client, 10.N.0.2 and fd00:N::2 at the server.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import evidence, netns
from tests.lab.commands import run
from tests.lab.oracle import Flow, read_subflows
from tests.lab.waiting import PATIENCE

IPPROTO_MPTCP = 262
CGROUPS = Path("/sys/fs/cgroup")
Socket = socket.socket  # Host.socket() hides the module in its class


class Host:
    """A network namespace with a cgroup; both have its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cgroup = CGROUPS / name
        self.cgroup.mkdir()
        run("ip", "netns", "add", name)
        self._namespace = os.open(f"/run/netns/{name}", os.O_RDONLY)
        self.ip("link", "set", "lo", "up")

    def close(self) -> None:
        if self._namespace < 0:
            return
        os.close(self._namespace)
        self._namespace = -1
        run("ip", "netns", "del", self.name)
        with contextlib.suppress(OSError):  # its sockets may still be closing
            self.cgroup.rmdir()

    def ip(self, *arguments: str) -> str:
        return run("ip", "-n", self.name, *arguments)

    def mptcp(self, *arguments: str) -> str:
        return self.ip("mptcp", *arguments)

    def lose(self, ip: str, device: str) -> None:
        """What is sent to that neighbour goes to nobody, until ``find``."""
        self.ip("neigh", "replace", ip, "lladdr", "02:00:00:00:00:09", "dev", device, "nud", "permanent")

    def find(self, ip: str, device: str) -> None:
        self.ip("neigh", "del", ip, "dev", device)

    def run(self, *command: str) -> str:
        """Output of a command in the namespace; AssertionError with its errors where it fails."""
        return netns.run_inside(self.name, *command)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This process is in the namespace and the cgroup of the host."""
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        (self.cgroup / "cgroup.procs").write_text("0")
        try:
            netns.enter_namespace(self._namespace)
            yield
        finally:
            netns.enter_namespace(home)
            os.close(home)
            (CGROUPS / "cgroup.procs").write_text("0")

    def socket(self, family: int = socket.AF_INET, protocol: int = IPPROTO_MPTCP) -> Socket:
        with self.inside():
            sock = socket.socket(family, socket.SOCK_STREAM, protocol)
        sock.settimeout(5 * PATIENCE)
        return sock

    def listen(self, ip: str, port: int = 0, *, protocol: int = IPPROTO_MPTCP) -> Socket:
        sock = self.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ip == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((ip, port))
        sock.listen(128)
        return sock

    def sysctl(self, name: str, value: object) -> None:
        netns.write_sysctls(self.name, {name: value})

    def read(self, file: str) -> list[str]:
        """The lines of /proc/net/``file`` in the namespace."""
        # /proc/net is that of the process's first thread.
        return netns.inside(self.name, Path("/proc/thread-self/net", file).read_text).splitlines()

    def counter(self, name: str, group: str = "MPTcpExt") -> int:
        """A counter of the namespace, from /proc/net/netstat."""
        names, values = (line.split() for line in self.read("netstat") if line.startswith(f"{group}:"))
        return int(dict(zip(names, values, strict=True))[name])

    def subflows(self) -> list[Flow]:
        """The established subflows of all sessions."""
        sessions = read_subflows(self.name).values()
        return [flow for flows in sessions for flow in flows if flow.state == "ESTAB"]


class TwoHosts:
    """``with TwoHosts() as hosts:`` has ``hosts.client``, ``hosts.server`` and sessions between them."""

    def __init__(self) -> None:
        self.client, self.server = Host("client"), Host("server")
        self._sockets: list[socket.socket] = []
        for n in (1, 2):
            run(
                *("ip", "link", "add", f"eth{n}", "netns", "client", "type", "veth"),
                *("peer", "name", f"eth{n}", "netns", "server"),
            )
            for host, last in ((self.client, 1), (self.server, 2)):
                host.ip("addr", "add", f"10.{n}.0.{last}/24", "dev", f"eth{n}")
                host.ip("addr", "add", f"fd00:{n}::{last}/64", "dev", f"eth{n}", "nodad")
                host.ip("link", "set", f"eth{n}", "up")

    def __enter__(self) -> Self:
        evidence.begin(self.look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            evidence.end(self.look, value)
        finally:
            for sock in self._sockets:
                sock.close()
            self.client.close()
            self.server.close()

    def look(self) -> list[evidence.Section]:
        """What a failed test shows: the sockets of both."""
        return [evidence.sockets(host.name) for host in (self.client, self.server)]

    def keep(self, sock: socket.socket) -> socket.socket:
        self._sockets.append(sock)
        return sock

    def listen(self, ip: str = "10.1.0.2", port: int = 5000, **kw: int) -> socket.socket:
        return self.keep(self.server.listen(ip, port, **kw))

    def connect(
        self, listener: socket.socket, ip: str = "10.1.0.2", *, family: int = 0, protocol: int = IPPROTO_MPTCP
    ) -> tuple[socket.socket, socket.socket]:
        """A session on which data went both ways: fully established at both ends."""
        client = self.keep(
            self.client.socket(family or (socket.AF_INET6 if ":" in ip else socket.AF_INET), protocol)
        )
        client.connect((ip, listener.getsockname()[1]))
        server = self.keep(listener.accept()[0])
        server.settimeout(5 * PATIENCE)
        exchange(client, server)
        return client, server


def exchange(a: socket.socket, b: socket.socket, data: bytes = b"x") -> None:
    """``data`` each way."""
    for sender, receiver in ((a, b), (b, a)):
        sender.sendall(data)
        receive(receiver, len(data))


def receive(sock: socket.socket, size: int) -> None:
    while size:
        size -= len(sock.recv(min(size, 65536)))


def disconnect(sock: socket.socket) -> None:
    """connect(AF_UNSPEC), after which the socket can be connected again; OSError where that fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(sock.fileno(), bytes(16), 16):
        raise OSError(ctypes.get_errno(), "connect(AF_UNSPEC)")
