#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""MPTCP traffic on command: a server or a client that is driven by JSON lines on stdin.

    traffic_tool.py server [--address ::] [--port 5000] [--sink]
    traffic_tool.py client HOST [--port 5000] [--bind ADDR] [--device IF] [--mark N] [--dual-stack] [--tcp]

Every command is answered by exactly one JSON line, in order; {"error": ...} where it failed.

    {"do": "open", "count": 10, "rate": 0}   client: connect (rate per second, 0: all at once), send one
                                             byte each and await its echo (a session is ESTABLISHED
                                             only after the first data exchange)
    {"do": "send", "bytes": N}               client: N more bytes on every connection, or for some
         or        "seconds": S              seconds; answers when all came back (sink: when the kernel
         with      "rate": R                 took all); at most R bytes per second and connection
    {"do": "close", "count": N}              client: the oldest N connections, without: all
    {"do": "report"}                         both: what each connection carried, with SHA-256

End of stdin ends the process. Standard library only; one process holds tens of thousands of connections.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import resource
import socket
import sys
import time
from typing import Any

IPPROTO_MPTCP = 262
MPTCP_INFO, SOL_MPTCP = 1, 284  # include/uapi/linux/mptcp.h
CHUNK = 64 * 1024
PATTERN = bytes(i * 7 % 251 for i in range(CHUNK + 251))


class Connection(asyncio.Protocol):
    """The client's end: counts and hashes both directions."""

    def __init__(self, connections: list[Connection]) -> None:
        self.connections = connections
        self.sent = self.received = 0
        self.sent_hash = hashlib.sha256()
        self.received_hash = hashlib.sha256()
        self.progress = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self.error = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=0)  # writable: nothing waits in user space
        self.local = name(transport.get_extra_info("sockname"))
        self.remote = name(transport.get_extra_info("peername"))
        self.connections.append(self)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self.received_hash.update(data)
        self.progress.set()

    def write(self, data: bytes) -> None:
        self.sent += len(data)
        self.sent_hash.update(data)
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = str(exc or "")
        self.progress.set()
        self.writable.set()

    async def send(self, size: int | None, seconds: float | None, rate: float) -> None:
        """``size`` bytes, or for ``seconds``; returns when the kernel took all of them."""
        start = time.monotonic()
        done = 0
        while not self.transport.is_closing() and (
            done < size if size is not None else time.monotonic() - start < (seconds or 0)
        ):
            await self.writable.wait()
            if rate and (ahead := done / rate - (time.monotonic() - start)) > 0:
                await asyncio.sleep(ahead)
            most = min(CHUNK, size - done) if size is not None else CHUNK
            if rate:
                most = min(most, max(1, int(rate / 20)))
            offset = self.sent % 251
            self.write(PATTERN[offset : offset + most])
            done += most
            await asyncio.sleep(0)
        await self.writable.wait()

    async def echoed(self) -> None:
        while self.received < self.sent and not self.transport.is_closing():
            self.progress.clear()
            await self.progress.wait()

    def report(self) -> dict[str, Any]:
        sock: socket.socket = self.transport.get_extra_info("socket")
        mptcp = False
        if sock is not None and sock.fileno() >= 0:
            # A connection that fell back to TCP refuses the option.
            with contextlib.suppress(OSError):
                mptcp = bool(sock.getsockopt(SOL_MPTCP, MPTCP_INFO, 64))
        return {
            "local": self.local,
            "remote": self.remote,
            "mptcp": mptcp,
            "open": not self.transport.is_closing(),
            "error": self.error,
            "sent": self.sent,
            "sent_sha256": self.sent_hash.hexdigest(),
            "received": self.received,
            "received_sha256": self.received_hash.hexdigest(),
        }


class Accepted(Connection):
    """The server's end: echoes everything, or (sink) only the first byte."""

    def __init__(self, connections: list[Connection], sink: bool) -> None:
        super().__init__(connections)
        self.sink = sink

    def data_received(self, data: bytes) -> None:
        # A sink answers the first byte too: that completes the MPTCP handshake.
        echo = data if not self.sink else data[: max(0, 1 - self.received)]
        super().data_received(data)
        if echo:
            self.write(echo)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


def name(address: tuple[Any, ...] | None) -> str:
    """``IP port``, IPv4 also where v4-mapped: what one end calls local, the other calls remote.

    "" for an end that is gone already.
    """
    if address is None:
        return ""
    return f"{str(address[0]).removeprefix('::ffff:').partition('%')[0]} {address[1]}"


async def connect(sock: socket.socket, address: Any) -> None:
    """Connect without ``loop.sock_connect``, which asks the resolver for protocol 262 and is refused."""
    with contextlib.suppress(BlockingIOError):
        sock.connect(address)
    loop = asyncio.get_running_loop()
    connected = asyncio.Event()
    loop.add_writer(sock, connected.set)
    try:
        await connected.wait()
    finally:
        loop.remove_writer(sock)
    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(error, os.strerror(error))


class Client:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.connections: list[Connection] = []
        info = socket.getaddrinfo(args.host, args.port, type=socket.SOCK_STREAM)[0]
        self.family, self.address = info[0], info[4]
        if args.dual_stack and self.family == socket.AF_INET:
            self.family, self.address = socket.AF_INET6, (f"::ffff:{args.host}", args.port)

    async def open(self, count: int = 1, rate: float = 0) -> dict[str, Any]:
        start = time.monotonic()
        opening = []
        for i in range(count):
            if rate and (ahead := i / rate - (time.monotonic() - start)) > 0:
                await asyncio.sleep(ahead)
            opening.append(asyncio.ensure_future(self._connect()))
        opened = await asyncio.gather(*opening)
        return {"opened": [c.local for c in opened], "seconds": time.monotonic() - start}

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        sock = socket.socket(self.family, socket.SOCK_STREAM, 0 if self.args.tcp else IPPROTO_MPTCP)
        if self.args.device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.args.device.encode())
        if self.args.mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self.args.mark)
        try:
            sock.setblocking(False)
            if self.args.bind:
                sock.bind((self.args.bind, 0))
            await connect(sock, self.address)
        except BaseException:
            sock.close()
            raise
        _, connection = await loop.create_connection(lambda: Connection(self.connections), sock=sock)
        connection.write(PATTERN[:1])
        while not connection.received:
            if connection.transport.is_closing():
                raise ConnectionError(f"{connection.local}: closed by the server: {connection.error}")
            connection.progress.clear()
            await connection.progress.wait()
        return connection

    async def send(
        self, bytes: int | None = None, seconds: float | None = None, rate: float = 0
    ) -> dict[str, Any]:
        start = time.monotonic()
        await asyncio.gather(*(c.send(bytes, seconds, rate) for c in self.connections))
        if not self.args.sink:
            await asyncio.gather(*(c.echoed() for c in self.connections))
        return {"sent": sum(c.sent for c in self.connections), "seconds": time.monotonic() - start}

    async def close(self, count: int | None = None) -> dict[str, Any]:
        closing = self.connections[:count]
        del self.connections[:count]
        for connection in closing:
            connection.transport.close()
        return {"closed": len(closing)}

    async def report(self) -> dict[str, Any]:
        return {"connections": [c.report() for c in self.connections]}


class Server:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.connections: list[Connection] = []

    async def listen(self) -> None:
        family = socket.AF_INET6 if ":" in self.args.address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM, 0 if self.args.tcp else IPPROTO_MPTCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((self.args.address, self.args.port))
        # asyncio accepts up to `backlog` connections per wake-up: more than a burst opens at once.
        await asyncio.get_running_loop().create_server(
            lambda: Accepted(self.connections, self.args.sink), sock=sock, backlog=4096
        )

    async def report(self) -> dict[str, Any]:
        return {"connections": [c.report() for c in self.connections]}

    async def forget(self) -> dict[str, Any]:
        """Drop the records of closed connections."""
        self.connections[:] = [c for c in self.connections if not c.transport.is_closing()]
        return {"open": len(self.connections)}


async def serve_commands(actor: Client | Server) -> None:
    """One answer per line of stdin until its end."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps({"ready": True}), flush=True)
    while line := await reader.readline():
        command = json.loads(line)
        do = command.pop("do")
        try:
            answer = await getattr(actor, do)(**command)
        except OSError as e:
            answer = {"error": str(e)}
        print(json.dumps(answer), flush=True)


async def run(args: argparse.Namespace) -> None:
    if args.role == "server":
        server = Server(args)
        await server.listen()
        await serve_commands(server)
    else:
        await serve_commands(Client(args))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    roles = parser.add_subparsers(dest="role", required=True)
    server = roles.add_parser("server")
    server.add_argument("--address", default="::", help="where to listen; :: takes both families")
    client = roles.add_parser("client")
    client.add_argument("host")
    client.add_argument("--bind", help="local address")
    client.add_argument("--device", help="interface or VRF (SO_BINDTODEVICE)")
    client.add_argument("--mark", type=int, help="SO_MARK")
    client.add_argument("--dual-stack", action="store_true", help="reach an IPv4 host by an IPv6 socket")
    for role in (server, client):
        role.add_argument("--port", type=int, default=5000)
        role.add_argument(
            "--sink", action="store_true", help="the server reads only (both ends must be told)"
        )
        role.add_argument("--tcp", action="store_true", help="plain TCP")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # one file per connection
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
