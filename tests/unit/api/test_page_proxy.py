# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ClientResponse, ClientSession, CookieJar, DummyCookieJar

from pm.api import connections, one_time_code, page_proxy
from pm.api.handlers import CONFIGURATION_BYTES
from pm.api.metrics import Timings
from pm.api.one_time_code import GOOD_S, OneTimeCode
from pm.api.page_proxy import serve_page
from pm.api.server import serve
from pm.config.model import Api
from pm.errors import PmError
from tests.unit.api.plane import Plane

CHANGE = {"X-Mptcp-Pm": "1"}
SUBFLOWS = "/v1/sessions/0xa0000001/subflows"
NOBODY = 65534


def test_a_code_is_good_once() -> None:
    """Wrong ones do not use it up."""
    code = OneTimeCode()
    assert not any(map(code.redeem, ("", "x", code.text + "x", code.text[:-1], "\ud800", "é")))
    assert code.redeem(code.text)
    assert not code.redeem(code.text)


def test_a_code_is_good_for_a_minute() -> None:
    """Then it is not, although nobody used it."""
    now = 0.0
    code = OneTimeCode(lambda: now)
    now = GOOD_S
    assert not code.redeem(code.text)
    assert OneTimeCode().text != OneTimeCode().text


class Running:
    """A service and the proxy before it."""

    def __init__(self, directory: Path) -> None:
        self.plane = Plane()
        self.plane.add(1)
        self.socket = str(directory / "api.sock")
        self.service = AsyncExitStack()
        self.url = self.code = ""

    async def start(self) -> None:
        await self.service.enter_async_context(serve(self.plane, Api(unix=self.socket), Timings()))

    def address(self, text: str) -> None:
        found = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/#code=([\w-]{22})", text)
        assert found
        self.url, self.code = found.groups()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(tmp_path)
    async with made.service:
        await made.start()
        async with serve_page(made.socket, 0, {os.geteuid()}) as address:
            made.address(address)
            yield made


@pytest.fixture
async def browser(running: Running) -> AsyncIterator[ClientSession]:
    """It keeps cookies, and has logged in."""
    async with ClientSession(running.url, cookie_jar=CookieJar(unsafe=True)) as session:
        assert (await log_in(session, running.code)).status == 204
        yield session


async def log_in(client: ClientSession, code: str, **headers: str) -> ClientResponse:
    return await client.post("/v1/login", json={"code": code}, headers=CHANGE | headers)


@pytest.fixture
async def stranger(running: Running) -> AsyncIterator[ClientSession]:
    """It has no cookie, and keeps none."""
    async with ClientSession(running.url, cookie_jar=DummyCookieJar()) as session:
        yield session


async def ask(port: int, request: str) -> bytes:
    """The answer to a request that no client would write."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


# The login


async def test_without_a_login_there_is_only_the_page(running: Running, stranger: ClientSession) -> None:
    """Nothing of the service, not even whether it lives."""
    assert (await stranger.get("/")).status in (200, 503)
    for where in ("/v1/status", "/healthz", "/metrics", "/openapi.json", "/nosuch", "/v1/../v1/status"):
        for cookie in ({}, {f"mptcp_pm_{running.port}": "x"}, {"mptcp_pm": "x"}):
            assert (await stranger.get(where, cookies=cookie)).status == 401
    assert await (await stranger.get("/v1/login")).json() == {"required": True, "logged_in": False}


async def test_requests_of_the_browser_reach_the_service(running: Running, browser: ClientSession) -> None:
    """Queries, bodies, statuses and problems as they are."""
    assert await (await browser.get("/v1/login")).json() == {"required": True, "logged_in": True}
    found = await (await browser.get("/v1/sessions", params={"limit": "1", "policy": "sync"})).json()
    assert [session["token"] for session in found["sessions"]] == ["0xa0000001"]
    problem = await browser.get("/v1/sessions?limit=x&policy=%22%3C")
    assert (problem.status, problem.content_type) == (400, "application/problem+json")
    opened = await browser.post(SUBFLOWS, json={"backup": True}, headers=CHANGE)
    assert opened.status == 201
    subflow = (await opened.json())["id"]
    changed = await browser.patch(f"{SUBFLOWS}/{subflow}", json={"backup": False}, headers=CHANGE)
    assert (await changed.json())["backup"] is False
    assert (await browser.delete(f"{SUBFLOWS}/{subflow}", headers=CHANGE)).status == 204
    wrong = await browser.put("/v1/status", headers=CHANGE)
    assert (wrong.status, wrong.headers["Allow"]) == (405, "GET")
    assert (await browser.get("/v1/sessions/0xdeadbeef")).status == 404


async def test_the_code_is_good_for_one_browser(running: Running, browser: ClientSession) -> None:
    """A second one that has seen the address is refused; the first stays."""
    async with ClientSession(running.url, cookie_jar=CookieJar(unsafe=True)) as second:
        response = await log_in(second, running.code)
        assert (response.status, "Set-Cookie" in response.headers) == (401, False)
        assert (await second.get("/v1/status")).status == 401
    assert (await browser.get("/v1/status")).status == 200


async def test_an_old_code_is_refused(
    running: Running, stranger: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its minute."""
    monkeypatch.setattr(one_time_code, "GOOD_S", 0.0)
    async with serve_page(running.socket, 0, {os.geteuid()}) as address:
        url, _, code = address.partition("/#code=")
        async with ClientSession(url) as late:
            assert (await log_in(late, code)).status == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{}", 401),
        (b'{"code": 1}', 400),
        (b'{"code": ""}', 401),
        (b'{"token": "0123456789abcdef"}', 401),
        (b'{"code": "%s"}' % (b"x" * 9000), 413),
    ],
)
async def test_what_is_no_code(stranger: ClientSession, body: bytes, status: int) -> None:
    """One clear answer, and no cookie."""
    response = await stranger.post("/v1/login", data=body, headers=CHANGE)
    assert (response.status, "Set-Cookie" in response.headers) == (status, False)


async def test_a_cookie_is_of_its_port(running: Running, stranger: ClientSession) -> None:
    """A browser sends it to every port of the host: the name is another for each. It is always a new one."""
    name = f"mptcp_pm_{running.port}"
    response = await stranger.post(
        "/v1/login", json={"code": running.code}, headers=CHANGE, cookies={name: "x" * 43}
    )
    header = response.headers["Set-Cookie"]
    given, *attributes = header.split("; ")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Strict"]
    assert given.partition("=")[0] == name
    assert (await stranger.get("/v1/status", cookies={name: "x" * 43})).status == 401
    value = given.partition("=")[2]
    assert (await stranger.get("/v1/status", cookies={name: value})).status == 200
    logout = await stranger.post("/v1/logout", headers=CHANGE, cookies={name: value})
    assert logout.status == 204
    assert (await stranger.get("/v1/status", cookies={name: value})).status == 401


# Other pages, other names, other users


async def test_parameters_that_a_path_does_not_have(running: Running, browser: ClientSession) -> None:
    """400, of the proxy's own paths as of the service's; a code in the address is none."""
    assert (await browser.get("/v1/login?code=x")).status == 400
    assert (await browser.post("/v1/logout?x", headers=CHANGE)).status == 400
    assert (await browser.post(f"/v1/login?code={running.code}", headers=CHANGE, json={})).status == 400
    assert (await browser.get("/v1/status?x=1")).status == 400
    assert (await browser.get("/v1/status")).status == 200


async def test_a_change_needs_the_header(running: Running, browser: ClientSession) -> None:
    """The login and the logout too."""
    before = len(running.plane.table[0xA0000001].subflows)
    for where in (SUBFLOWS, "/v1/reload", "/v1/login", "/v1/logout"):
        assert (await browser.post(where, json={})).status == 403
    assert len(running.plane.table[0xA0000001].subflows) == before
    assert (await browser.get("/v1/status")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_the_page_of_another_origin(browser: ClientSession, headers: dict[str, str]) -> None:
    """403, whatever else the request has."""
    assert (await browser.get("/v1/status", headers=headers)).status == 403
    assert (await browser.post(SUBFLOWS, json={}, headers=CHANGE | headers)).status == 403
    assert (await browser.post("/v1/logout", headers=CHANGE | headers)).status == 403
    assert (await browser.get("/v1/status")).status == 200


async def test_its_own_origin(running: Running, browser: ClientSession) -> None:
    """By both names, and a link elsewhere may lead to the page."""
    for name in ("127.0.0.1", "localhost"):
        own = {"Origin": f"http://{name}:{running.port}", "Sec-Fetch-Site": "same-origin"}
        assert (await browser.get("/v1/status", headers=own)).status == 200
    assert (await browser.get("/", headers={"Sec-Fetch-Site": "cross-site"})).status in (200, 503)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:PORT",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost:",
        "127.0.0.2:PORT",
        "[::1]:PORT",
        "",
    ],
)
async def test_another_name_for_the_port(running: Running, browser: ClientSession, host: str) -> None:
    """421: names that an attacker's DNS leads here. The page itself is not answered either."""
    host = host.replace("PORT", str(running.port))
    for where in ("/", "/v1/status", "/v1/login"):
        assert (await browser.get(where, headers={"Host": host})).status == 421


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET /v1/login HTTP/1.1\r\n\r\n", b"400"),
        ("GET /v1/login HTTP/1.0\r\n\r\n", b"421"),
        ("GET /v1/login HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nHost: evil\r\n\r\n", b"4"),
        ("GET http://evil/v1/login HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n", b"400"),
        ("GET /v1/login HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nA: b\0c\r\n\r\n", b"400"),
        ("CONNECT evil:80 HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n", b"4"),
        ("\x16\x03\x01", b"400"),
    ],
)
async def test_requests_that_no_browser_sends(running: Running, request_: str, status: bytes) -> None:
    """An error each, and the next one is answered."""
    text = request_.replace("PORT", str(running.port)).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
    answer = await ask(running.port, text if "\r\n\r\n" in text else f"{text}\r\n\r\n")
    assert answer.split(b" ", 2)[1].startswith(status)
    async with ClientSession(running.url) as client:
        assert (await client.get("/v1/login")).status == 200


async def test_nothing_but_what_is_needed_is_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the cookie nor a forged header reaches the service; its answers set no cookie and no policy."""
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\nLocation: http://evil\r\n")
        writer.write(b"Content-Security-Policy: none\r\nAccess-Control-Allow-Origin: *\r\n\r\n{}")
        await writer.drain()
        writer.close()

    path = str(tmp_path / "other.sock")
    async with await asyncio.start_unix_server(answer, path), serve_page(path, 0, {os.geteuid()}) as address:
        url, _, code = address.partition("/#code=")
        async with ClientSession(url, cookie_jar=CookieJar(unsafe=True)) as client:
            await log_in(client, code)
            headers = {"Authorization": "Bearer x", "X-Forwarded-For": "1.2.3.4", "Last-Event-ID": "7"}
            response = await client.get("/v1/a%2Fb?q=%0D%0AX:%20y", headers=headers)
            assert (await client.get("/v1/a%0D%0AX:%20y")).status == 404
    assert response.status == 200, await response.text()
    first, *rest = seen[0].decode().split("\r\n")
    assert first == "GET /v1/a%2Fb?q=%0D%0AX:%20y HTTP/1.1"
    names = {line.partition(":")[0].lower() for line in rest if line}
    assert names == {"host", "accept", "last-event-id", "accept-encoding", "user-agent", "connection"}
    given = {name.lower() for name in response.headers}
    assert not given & {"set-cookie", "location", "access-control-allow-origin", "content-security-policy"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of other users")
async def test_another_user_is_not_answered(running: Running) -> None:
    """Not a byte, although the port is open to all, and the code is right."""
    body = f'{{"code": "{running.code}"}}'
    request = (
        f"POST /v1/login HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\nX-Mptcp-Pm: 1\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )
    code = (
        f"import socket; s = socket.create_connection(('127.0.0.1', {running.port}))\n"
        f"try:\n    s.sendall({request.encode()!r}); print(len(s.recv(100)))\n"
        "except ConnectionError:\n    print(0)"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-I", "-S", "-c", code],
        user=NOBODY,
        capture_output=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, b"0\n")
    async with ClientSession(running.url, cookie_jar=CookieJar(unsafe=True)) as own:
        assert (await log_in(own, running.code)).status == 204


# The service is gone


async def test_a_service_that_is_restarted(running: Running, browser: ClientSession) -> None:
    """502 while it is gone, with one line that says so; then as before. The page itself is always there."""
    await running.service.aclose()
    for _ in range(3):
        response = await browser.get("/v1/status")
        assert response.status == 502
        problem = await response.json()
        assert problem["detail"] == f"the service is not running: nothing answers at {running.socket}"
        assert (await browser.post("/v1/reload", headers=CHANGE)).status == 502
    assert (await browser.get("/")).status in (200, 503)
    await running.start()
    assert (await browser.get("/v1/status")).status == 200


async def test_a_socket_that_may_not_be_opened(
    running: Running, browser: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mode says so, not that there is no service."""

    async def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_unix_connection", refuse, raising=False)
    response = await browser.get("/v1/status")
    assert (response.status, (await response.json())["detail"]) == (
        502,
        f"permission denied: {running.socket}",
    )


async def test_a_stream_ends_with_the_service(running: Running, browser: ClientSession) -> None:
    """Visibly broken off, so that the page connects again."""
    async with browser.get("/v1/events") as stream:
        await stream.content.readuntil(b"subscribed\n\n")
        running.plane.publish()
        await stream.content.readuntil(b"data:")
        await running.service.aclose()
        with pytest.raises(ClientPayloadError):
            async with asyncio.timeout(10):
                await stream.content.read()
    await running.start()
    async with browser.get("/v1/events", headers={"Last-Event-ID": "0"}) as stream:
        await stream.content.readuntil(b"-1\n")


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
async def test_something_else_behind_the_socket(tmp_path: Path, answer: bytes) -> None:
    """502, no traceback."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    path = str(tmp_path / "other.sock")
    async with await asyncio.start_unix_server(say, path), serve_page(path, 0, {os.geteuid()}) as address:
        url, _, code = address.partition("/#code=")
        async with ClientSession(url, cookie_jar=CookieJar(unsafe=True)) as client:
            await log_in(client, code)
            assert (await client.get("/v1/status")).status == 502


async def test_a_service_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """502 after a while."""
    monkeypatch.setattr(page_proxy, "SILENCE_S", 0.1)

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    path = str(tmp_path / "other.sock")
    async with await asyncio.start_unix_server(nothing, path), serve_page(path, 0, {os.geteuid()}) as address:
        url, _, code = address.partition("/#code=")
        async with ClientSession(url, cookie_jar=CookieJar(unsafe=True)) as client:
            await log_in(client, code)
            response = await client.get("/v1/status")
            assert (response.status, (await response.json())["detail"]) == (
                502,
                f"{path} did not answer in time",
            )


# Bounds


async def test_bodies_are_bounded(browser: ClientSession, stranger: ClientSession) -> None:
    """413 above what the largest request of the API has; without a login nothing is read at all."""
    large = b"x" * (CONFIGURATION_BYTES + 1)
    response = await browser.post("/v1/reload/dry-run", data=large, headers=CHANGE)
    assert response.status == 413
    small = await browser.post(SUBFLOWS, data=b"x" * (65 << 10), headers=CHANGE)
    assert small.status == 413  # as the service itself says
    assert (await stranger.post(SUBFLOWS, data=b"x", headers=CHANGE)).status == 401


async def test_a_thousand_connections(running: Running, browser: ClientSession) -> None:
    """Those without a login make room; the browser is answered all the while."""
    assert (await browser.get("/v1/status")).status == 200
    writers = []
    for number in range(1000):
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writers.append(writer)
        if number % 100 == 0:
            assert (await browser.get("/v1/status")).status == 200
    assert (await browser.get("/v1/status")).status == 200
    for writer in writers:
        writer.close()


async def test_a_slow_reader_holds_up_nobody(
    running: Running, browser: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leaves unread stays with the service, which drops it there; then it is cut off."""
    monkeypatch.setattr(connections, "UNREAD_S", 0.3)
    cookie = next(iter(browser.cookie_jar))
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
    writer.write(
        f"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n"
        f"Cookie: {cookie.key}={cookie.value}\r\n\r\n".encode()
    )
    await reader.readuntil(b"subscribed")
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # reads as well as it writes
    async with asyncio.timeout(30):
        while running.plane.events.readers:  # until its stream has ended
            for _ in range(500):
                running.plane.publish()
            assert (await browser.get("/v1/addresses")).status == 200
    writer.close()


async def test_a_port_in_use(running: Running) -> None:
    """One line."""
    with pytest.raises(PmError, match=r"cannot listen on .*: Address already in use: correct `--port`"):
        async with serve_page(running.socket, running.port, {os.geteuid()}):
            pass
