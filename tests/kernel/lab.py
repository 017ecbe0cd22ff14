# SPDX-License-Identifier: GPL-2.0-only
"""Two hosts on two links inside the patched kernel, in one process: a socket keeps the network
namespace and the cgroup in which it was made, so each host makes its own and threads are not needed.

Link N (1 or 2): 10.N.0.1 and fd00:N::1 at the client, 10.N.0.2 and fd00:N::2 at the server.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar

from tests.lab.waiting import PATIENCE

CLONE_NEWNET = 0x40000000
IPPROTO_MPTCP = 262
CGROUPS = Path("/sys/fs/cgroup")
T = TypeVar("T")
Socket = socket.socket  # Host.socket() hides the module in its class


def wait_for(what: str, condition: Callable[[], T], timeout_s: float = 5.0) -> T:
    """The first true value of ``condition()``; fails after ``timeout_s``, times PATIENCE."""
    timeout_s *= PATIENCE
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {timeout_s} s; last: {value!r}"
        time.sleep(0.005)
    return value


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Host:
    """A network namespace with a cgroup."""

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
        with contextlib.suppress(OSError):  # sockets of it may still be closing
            self.cgroup.rmdir()

    def ip(self, *arguments: str) -> str:
        return run("ip", "-n", self.name, *arguments)

    def mptcp(self, *arguments: str) -> str:
        return run("ip", "-n", self.name, "mptcp", *arguments)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This process in the namespace and cgroup of the host."""
        libc = ctypes.CDLL(None, use_errno=True)
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        (self.cgroup / "cgroup.procs").write_text("0")
        try:
            assert libc.setns(self._namespace, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            yield
        finally:
            assert libc.setns(home, CLONE_NEWNET) == 0
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

    def sysctl(self, name: str, value: object = None) -> str:
        with self.inside():
            path = Path("/proc/sys") / name.replace(".", "/")
            if value is not None:
                path.write_text(str(value))
            return path.read_text().strip()

    def counter(self, name: str) -> int:
        """MPTcpExt``name`` of the namespace."""
        with self.inside():
            # of this thread: /proc/net is that of the process's first one
            lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
        header, values = (line.split() for line in lines if line.startswith("MPTcpExt:"))
        return int(dict(zip(header, values, strict=True)).get(name, 0))

    def subflows(self) -> list[tuple[str, str]]:
        """(local, remote) "ip:port" of the established TCP sockets of MPTCP sessions."""
        with self.inside():
            lines = run("ss", "-Htni", "state", "established").splitlines()
        pairs = []
        for line, info in zip(lines[::2], lines[1::2], strict=True):
            if "tcp-ulp-mptcp" in info:
                pairs.append((line.split()[2], line.split()[3]))
        return sorted(pairs)


class Lab:
    """``lab.client``, ``lab.server`` and the sessions between them."""

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
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets:
            sock.close()
        self.client.close()
        self.server.close()

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
        left = len(data)
        while left:
            left -= len(receiver.recv(left))
