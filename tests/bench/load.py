# SPDX-License-Identifier: Apache-2.0
"""Processes the API benchmark needs: the bare handler to compare with, and a reader without pause.

python -m tests.bench.load bare SOCKET BODY_FILE
python -m tests.bench.load poll SOCKET PATH
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from pathlib import Path

from aiohttp import web


class Reader:
    """``GET`` on one kept-alive connection to a Unix socket, with as little of its own as can be."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)

    def get(self, path: str) -> bytes:
        """The body. AssertionError for any answer but 200."""
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, body = data.partition(b"\r\n\r\n")
        status, *fields = head.lower().split(b"\r\n")
        assert b" 200 " in status, head
        size = next(int(f.split(b":")[1]) for f in fields if f.startswith(b"content-length:"))
        parts, have = [body], len(body)
        while have < size:
            parts.append(self._receive())
            have += len(parts[-1])
        return b"".join(parts)

    def _receive(self) -> bytes:
        data = self.sock.recv(1 << 18)
        assert data, "the server closed the connection"
        return data

    def seconds(self, path: str) -> float:
        start = time.perf_counter()
        self.get(path)
        return time.perf_counter() - start


async def serve_bare(path: str, body: bytes) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/v1/sessions", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    await asyncio.Event().wait()


def main(role: str, path: str, argument: str) -> None:
    if role == "bare":
        asyncio.run(serve_bare(path, Path(argument).read_bytes()))
    reader = Reader(path)
    while True:
        reader.get(argument)


if __name__ == "__main__":
    main(*sys.argv[1:])
