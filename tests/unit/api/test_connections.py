# SPDX-License-Identifier: GPL-2.0-only
"""What strangers and readers that do not read can take of the API."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pm.api import connections, server, sse
from pm.api.metrics import Timings
from pm.api.server import serve
from pm.config.model import Api, ApiTcp
from tests.unit.api.plane import Plane

TOKEN = "0123456789abcdef"


@pytest.fixture
def api(tmp_path: Path) -> Api:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    return Api(unix=str(tmp_path / "api.sock"), tcp=ApiTcp(listen="127.0.0.1:1", token_file=str(token)))


@pytest.fixture(autouse=True)
def any_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pm.api.sockets.host_and_port", lambda listen, key: ("127.0.0.1", 0))


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The status line; "" where the connection was closed."""
    try:
        return await asyncio.wait_for(reader.readline(), 10)
    except ConnectionError:
        return b""


async def test_silent_connections_are_closed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word, with half of a header, and idle after a request: on both sockets."""
    monkeypatch.setattr(server, "SILENT_S", 0.2)
    async with serve(Plane(), api, Timings()) as addresses:
        for connect in (
            lambda: asyncio.open_unix_connection(addresses[0]),
            lambda: asyncio.open_connection(*addresses[1][:2]),
        ):
            for said in (b"", b"GET / HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
                reader, writer = await connect()
                writer.write(said)
                assert (b"200" in await asyncio.wait_for(reader.read(), 10)) == said.endswith(b"\r\n\r\n")
                writer.close()


async def test_strangers_make_room(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TCP the oldest connection without a token goes; one that had it stays."""
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 8)
    request = f"GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    async with serve(Plane(), api, Timings()) as addresses:
        known_reader, known = await asyncio.open_connection(*addresses[1][:2])
        known.write(request)
        assert b"200" in await answer(known_reader)
        strangers = [await asyncio.open_connection(*addresses[1][:2]) for _ in range(20)]
        reader, late = await asyncio.open_connection(*addresses[1][:2])
        late.write(request)
        assert b"200" in await answer(reader)
        known.write(request)
        assert await answer(known_reader)
        assert await answer(strangers[0][0]) == b""
        for writer in (known, late, *(writer for _, writer in strangers)):
            writer.close()


async def test_event_streams_are_counted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of events more than there may be is told so."""
    monkeypatch.setattr(sse, "STREAMS_MAX", 2)
    async with serve(Plane(), api, Timings()) as addresses:
        writers = []
        for status in (b"200", b"200", b"503"):
            reader, writer = await asyncio.open_unix_connection(addresses[0])
            writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status in await answer(reader)
            writers.append(writer)
        for writer in writers:
            writer.close()


async def test_reader_that_does_not_read_is_cut_off(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody takes is not kept for ever."""
    monkeypatch.setattr(connections, "UNREAD_S", 0.1)
    plane = Plane()
    async with serve(plane, api, Timings()) as addresses:
        reader, writer = await asyncio.open_unix_connection(addresses[0], limit=1024)
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"subscribed")
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        async with asyncio.timeout(20):
            while plane.events.readers:
                for _ in range(200):
                    plane.publish()
                await asyncio.sleep(0.01)
        writer.close()
