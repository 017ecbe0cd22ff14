# SPDX-License-Identifier: Apache-2.0
"""What strangers and readers that do not read can take of the API."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from pm.api import connections, handlers, server, sse
from pm.api.metrics import Timings
from pm.api.server import serve
from pm.config.model import Api, ApiTcp, Tls
from pm.errors import PmError
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
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(20):
            while plane.events.readers:
                for _ in range(200):
                    plane.publish()
                await asyncio.sleep(0.01)
        writer.close()


async def ask(path: str, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which ``request`` was sent, and of which nothing more is read than its buffer takes."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1024)
    writer.write(request)
    return reader, writer


LIST = b"GET /v1/sessions?limit=1000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def test_unread_answers_are_bounded_together(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who have left theirs unread for the longest time are cut off; whoever reads has all of it."""
    plane = Plane()
    for number in range(1000):
        plane.add(number)
    monkeypatch.setattr(connections, "UNREAD_BYTES_MAX", 4 << 20)
    async with serve(plane, api, Timings()) as addresses:
        lazy = []
        for _ in range(8):
            lazy.append(await ask(addresses[0], LIST))
            assert b"200" in await lazy[-1][0].readline()
        _, body = await whole((await ask(addresses[0], LIST))[0])
        got = [await whole(reader) for reader, _ in lazy]
        for _, writer in lazy:
            writer.close()
    assert len(body) > 1 << 20
    complete = [rest for _, rest in got if len(rest) == len(body)]
    # The newest ones, whose answers have room.
    assert 1 <= len(complete) <= (4 << 20) // len(body)
    assert [len(rest) == len(body) for _, rest in got] == sorted(len(rest) == len(body) for _, rest in got)


async def whole(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The header and the body of an answer, as much as there is."""
    found = bytearray()
    try:
        while some := await asyncio.wait_for(reader.read(1 << 16), 10):
            found += some
    except ConnectionError:
        pass
    head, _, body = bytes(found).partition(b"\r\n\r\n")
    return head, body


async def test_a_long_answer_over_tls_is_sent_as_it_is_read(
    api: Api, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that does not read is cut off below TLS as well."""
    monkeypatch.setattr(connections, "UNREAD_S", 0.2)
    plane = Plane()
    for number in range(1000):
        plane.add(number)
    assert api.tcp
    tcp = replace(api.tcp, tls=Tls(cert=certificate[0], key=certificate[1]))
    async with serve(plane, replace(api, tcp=tcp), Timings()) as addresses:
        context = ssl.create_default_context(cafile=certificate[0])
        context.check_hostname = False
        reader, writer = await asyncio.open_connection(*addresses[1][:2], ssl=context, limit=1024)
        writer.write(LIST.replace(b"Connection", f"Authorization: Bearer {TOKEN}\r\nConnection".encode()))
        assert b"200" in await reader.readline()
        await asyncio.sleep(1)  # UNREAD_S, and more
        _, body = await whole(reader)
        writer.close()
    assert 0 < len(body) < 1 << 20


async def test_the_rest_of_answers_that_nobody_reads(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little that the kernel does not take holds a connection no longer than much of it."""
    monkeypatch.setattr(connections, "UNREAD_S", 0.2)
    monkeypatch.setattr(server, "SILENT_S", 0.2)
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 1)
    async with serve(Plane(), api, Timings()) as addresses:
        lazy_reader, lazy = await ask(addresses[0], 400 * b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await answer(lazy_reader)
        lazy.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(20):
            while True:
                reader, writer = await ask(addresses[0], b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                found = await answer(reader)
                writer.close()
                if b"200" in found:
                    break
                await asyncio.sleep(0.1)
        lazy.close()


async def test_dry_runs_are_counted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a process: one more than there may be is refused, and they give their places back."""
    running, may_end = asyncio.Semaphore(0), asyncio.Event()

    async def dry_run(content: str | None) -> None:
        running.release()
        await may_end.wait()
        raise PmError("not now")

    plane = Plane()
    monkeypatch.setattr(plane, "dry_run", dry_run)
    request = b"POST /v1/reload/dry-run HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    async with serve(plane, api, Timings()) as addresses:
        held = [await ask(addresses[0], request) for _ in range(handlers.DRY_RUNS_MAX)]
        async with asyncio.timeout(10):
            for _ in held:
                await running.acquire()
        reader, more = await ask(addresses[0], request)
        assert b"503" in await answer(reader)
        may_end.set()
        assert [b"500" in await answer(reader) for reader, _ in held] == [True] * handlers.DRY_RUNS_MAX
        held.append(await ask(addresses[0], request))
        assert b"500" in await answer(held[-1][0])
        for _, writer in (*held, (reader, more)):
            writer.close()
