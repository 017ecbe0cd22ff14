# SPDX-License-Identifier: Apache-2.0
"""Accepting connections, with bounds: how many, how long they may be silent, how long they may not read.

aiohttp answers the requests; here is what happens before the first and around all of them.
"""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from pm.api.problems import Handler
from pm.log_budget import get_limited_logger

CONNECTIONS_MAX = 256
"""Of each listener. A stranger's oldest one makes room over TCP; a Unix socket has no strangers."""
SILENT_S = 15.0
"""How long a connection may take for the headers of a request, and be idle between two."""
HANDSHAKE_S = 10.0
UNREAD_S = 30.0
"""How long the peer may leave what it was sent unread."""
UNREAD_BYTES_MAX = 16 << 20
"""Of all connections together."""
NO_DESCRIPTOR_WAIT_S = 0.2

_log = get_limited_logger()


class Unread:
    """The connections whose peers have left something unread; all listeners of a service share it."""

    def __init__(self) -> None:
        self._waiting: dict[Connection, None] = {}
        """The one that has waited longest first."""

    def add(self, connection: Connection) -> None:
        """From now on this one waits. Where it is too much, those that have waited longest are cut off."""
        self._waiting[connection] = None
        while len(self._waiting) > 1 and sum(c.unread_bytes() for c in self._waiting) > UNREAD_BYTES_MAX:
            next(iter(self._waiting)).abort()

    def remove(self, connection: Connection) -> None:
        self._waiting.pop(connection, None)


class Connection(asyncio.Protocol):
    """Stands between a transport and aiohttp's handler of one connection."""

    def __init__(self, handler: asyncio.Protocol, listener: Listener) -> None:
        self._handler = handler
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._unread: asyncio.TimerHandle | None = None
        self.trusted = False
        """Whether a request on it had the right token."""
        self.answer_bytes = 0
        """The length of the answer that is being sent, which is in memory until its last piece is sent."""

    def unread_bytes(self) -> int:
        """What the peer has left unread, at most."""
        return self.answer_bytes + (self._transport.get_write_buffer_size() if self._transport else 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's are not subclasses
        # Whatever the kernel does not take at once is waited for, and counts.
        transport.set_write_buffer_limits(high=0)  # type: ignore[attr-defined]
        self._handler.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._listener.connections.pop(self, None)
        self.resume_writing()
        self._handler.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        return self._handler.eof_received()

    def pause_writing(self) -> None:
        self._unread = asyncio.get_running_loop().call_later(UNREAD_S, self.abort)
        self._handler.pause_writing()
        self._listener.unread.add(self)

    def resume_writing(self) -> None:
        if self._unread:
            self._unread.cancel()
            self._unread = None
            self._listener.unread.remove(self)
            self._handler.resume_writing()

    def abort(self) -> None:
        self._listener.connections.pop(self, None)
        self._listener.unread.remove(self)
        if self._transport:
            self._transport.abort()


class Listener:
    """Accepts the connections of one listening socket."""

    def __init__(
        self, listening: socket.socket, server: web.Server, unread: Unread, context: ssl.SSLContext | None
    ) -> None:
        self.unread = unread
        self._listening = listening
        self._server = server
        self._context = context
        self.connections: dict[Connection, None] = {}
        """The oldest first; also those whose TLS handshake has not ended."""
        self.opening: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Accept forever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._listening)
            except OSError as e:  # no descriptor left, say; the connection waits in the kernel
                _log.warning("connection_not_accepted", about=e.errno, error=e.strerror)
                await asyncio.sleep(NO_DESCRIPTOR_WAIT_S)
                continue
            if len(self.connections) >= CONNECTIONS_MAX and not self._make_room():
                accepted.close()
                _log.warning("connection_refused", reason=f"there are {CONNECTIONS_MAX} already")
                continue
            connection = Connection(self._server(), self)
            self.connections[connection] = None
            opening = loop.create_task(self._open(accepted, connection))
            self.opening.add(opening)
            opening.add_done_callback(self.opening.discard)
            opening.add_done_callback(raise_failure)

    def _make_room(self) -> bool:
        if self._listening.family == socket.AF_UNIX:
            return False
        stranger = next((c for c in self.connections if not c.trusted), None)
        if stranger:
            stranger.abort()
        return stranger is not None

    async def _open(self, accepted: socket.socket, connection: Connection) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S if self._context else None,
            )
        except (OSError, EOFError):  # TimeoutError and ssl.SSLError are OSErrors
            self.connections.pop(connection, None)
            accepted.close()


@asynccontextmanager
async def listen(
    runner: web.AppRunner, listening: socket.socket, unread: Unread, context: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Answer the connections of a bound socket while the context lasts."""
    assert runner.server
    listening.setblocking(False)
    listening.listen(128)
    listener = Listener(listening, runner.server, unread, context)
    accepting = asyncio.get_running_loop().create_task(listener.run())
    accepting.add_done_callback(raise_failure)
    try:
        yield
    finally:
        tasks = [accepting, *listener.opening]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        listening.close()


async def end_task(task: asyncio.Task[None]) -> None:
    """Cancel it, and wait until it has ended."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def raise_failure(task: asyncio.Task[None]) -> None:
    """In a callback, where a failure ends the service (``pm.callbacks``)."""
    if not task.cancelled() and (error := task.exception()):
        raise error


def trust(request: web.Request) -> None:
    """The request had the right token: its connection does not make room for others."""
    if connection := _connection_of(request):
        connection.trusted = True


@web.middleware
async def answer_in_pieces(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Send a long answer piece by piece, as the peer reads it, and count all of it until the end.

    In one piece it would be with the kernel, or unseen below TLS, whoever reads.
    """
    connection = _connection_of(request)
    if connection:
        connection.answer_bytes = 0
    response = await handler(request)
    if isinstance(response, web.Response) and isinstance(response.body, bytes):
        if connection:
            connection.answer_bytes = len(response.body)
        response.body = io.BytesIO(response.body)
    return response


def _connection_of(request: web.Request) -> Connection | None:
    protocol = getattr(request.transport, "get_protocol", lambda: None)()
    return protocol if isinstance(protocol, Connection) else None
