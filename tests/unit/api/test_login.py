# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession, CookieJar, DummyCookieJar, TCPConnector, UnixConnector
from structlog.testing import capture_logs

from pm.api import access
from pm.api.access import (
    ADDRESSES_MAX,
    FAILURES_MAX,
    FAILURES_S,
    IDLE_S,
    KNOWN_S,
    LASTS_S,
    LOGINS_MAX,
    Logins,
    Trials,
)
from pm.api.metrics import Timings
from pm.api.server import serve
from pm.config.model import Api, ApiTcp, Tls
from tests.unit.api.plane import Plane

TOKEN = "0123456789abcdef"
OTHER = "fedcba9876543210"
CHANGE = {"X-Mptcp-Pm": "1"}
SUBFLOWS = "/v1/sessions/0xa0000001/subflows"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# Pure


def test_a_login_ends_when_it_is_not_used() -> None:
    """Use keeps it, but not for ever."""
    clock = Clock()
    logins = Logins(clock)
    used, unused = logins.begin(), logins.begin()
    begun = clock.now
    while clock.now < begun + LASTS_S - IDLE_S:
        clock.now += IDLE_S - 1
        assert logins.use(used)
    assert not logins.use(unused)
    clock.now = begun + LASTS_S
    assert not logins.use(used)
    assert len(logins) == 0


def test_logins_are_bounded() -> None:
    """The one that was not used for the longest makes room."""
    logins = Logins(Clock())
    names = [logins.begin() for _ in range(LOGINS_MAX)]
    assert logins.use(names[0])
    newest = logins.begin()
    assert len(logins) == LOGINS_MAX
    assert [logins.use(name) for name in (names[0], names[1], names[2], newest)] == [True, False, True, True]


@pytest.mark.parametrize("name", ["", "x", "\udcff", "é" * 5000])
def test_what_is_no_login(name: str) -> None:
    """Whatever stands in a cookie."""
    logins = Logins(Clock())
    logins.begin()
    assert not logins.use(name)
    logins.end(name)
    assert len(logins) == 1


def test_wrong_tokens_make_an_address_wait() -> None:
    """That address only; and one after the other may be tried again."""
    clock = Clock()
    trials = Trials(clock)
    for _ in range(FAILURES_MAX):
        assert trials.wait_s("192.0.2.1") == 0
        trials.note("192.0.2.1", right=False)
        clock.now += 1
    assert trials.wait_s("192.0.2.1") == FAILURES_S - FAILURES_MAX
    assert trials.wait_s("192.0.2.2") == 0
    clock.now += FAILURES_S - FAILURES_MAX
    assert trials.wait_s("192.0.2.1") == 0
    trials.note("192.0.2.1", right=False)
    assert trials.wait_s("192.0.2.1") == 1


def test_nobody_locks_out_who_has_the_token() -> None:
    """An address from which a right one came does not wait for a day, whatever else comes from there."""
    clock = Clock()
    trials = Trials(clock)
    trials.note("192.0.2.1", right=True)
    for _ in range(2 * FAILURES_MAX):
        trials.note("192.0.2.1", right=False)
    assert trials.wait_s("192.0.2.1") == 0
    clock.now += KNOWN_S
    assert trials.wait_s("192.0.2.1") == 0
    for _ in range(FAILURES_MAX):
        trials.note("192.0.2.1", right=False)
    assert trials.wait_s("192.0.2.1") > 0


def test_a_host_with_many_addresses_is_one() -> None:
    """Of IPv6 the /64 counts; IPv4 in it is IPv4; what is no address is itself."""
    trials = Trials(Clock())
    for number in range(FAILURES_MAX):
        trials.note(f"2001:db8::{number:x}", right=False)
        trials.note("::ffff:192.0.2.1", right=False)
        trials.note("", right=False)
    assert trials.wait_s("2001:db8::ffff:1")
    assert not trials.wait_s("2001:db8:0:1::1")
    assert not trials.wait_s("::ffff:192.0.2.2")
    assert trials.wait_s("")


def test_addresses_are_bounded() -> None:
    """Those that tried last are kept."""
    trials = Trials(Clock())
    for number in range(ADDRESSES_MAX + 100):
        address = f"10.0.{number >> 8}.{number & 255}"
        for _ in range(FAILURES_MAX):
            trials.note(address, right=False)
        trials.note(address.replace("10.0", "10.1"), right=True)
    assert len(trials._wrong) == len(trials._right) == ADDRESSES_MAX
    assert not trials.wait_s("10.0.0.1")
    assert trials.wait_s("10.0.4.1")


# Over TCP


@pytest.fixture
def plane() -> Plane:
    plane = Plane()
    plane.add(1)
    return plane


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    return file


@pytest.fixture
async def url(plane: Plane, token_file: Path, tmp_path: Path) -> AsyncIterator[str]:
    tcp = ApiTcp(listen="127.0.0.1:0", token_file=str(token_file))
    async with serve(plane, Api(unix=str(tmp_path / "s"), tcp=tcp), Timings()) as addresses:
        yield f"http://127.0.0.1:{addresses[1][1]}"


@pytest.fixture
def cookie(url: str) -> str:
    """The name of the service's cookie."""
    return f"mptcp_pm_{url.rpartition(':')[2]}"


@pytest.fixture
async def browser(url: str) -> AsyncIterator[ClientSession]:
    """It keeps cookies, as a browser does."""
    async with ClientSession(url, cookie_jar=CookieJar(unsafe=True)) as session:
        yield session


async def log_in(client: ClientSession, token: str = TOKEN, **headers: str) -> ClientResponse:
    return await client.post("/v1/login", json={"token": token}, headers=headers)


async def read(client: ClientSession) -> int:
    return (await client.get("/v1/status")).status


async def test_a_cookie_does_in_the_place_of_the_token(browser: ClientSession) -> None:
    """From the login to the logout."""
    assert await read(browser) == 401
    assert await (await browser.get("/v1/login")).json() == {"required": True, "logged_in": False}
    assert (await log_in(browser)).status == 204
    assert await read(browser) == 200
    assert await (await browser.get("/v1/login")).json() == {"required": True, "logged_in": True}
    assert (await browser.post("/v1/logout", headers=CHANGE)).status == 204
    assert await read(browser) == 401


async def test_logout_ends_the_login_itself(browser: ClientSession, url: str, cookie: str) -> None:
    """Not only the browser's memory of it."""
    cookies = {cookie: (await log_in(browser)).cookies[cookie].value}
    await browser.post("/v1/logout", headers=CHANGE)
    async with ClientSession(url, cookies=cookies, cookie_jar=CookieJar(unsafe=True)) as other:
        assert await read(other) == 401


async def test_no_script_and_no_other_site_gets_the_cookie(browser: ClientSession, cookie: str) -> None:
    """Its attributes; without a date it ends with the browser."""
    header = (await log_in(browser)).headers["Set-Cookie"]
    name, *attributes = header.split("; ")
    assert name.startswith(f"{cookie}=")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Strict"]


async def test_over_tls_the_cookie_stays_there(
    plane: Plane, token_file: Path, certificate: tuple[str, str]
) -> None:
    """Secure."""
    tls = Tls(cert=certificate[0], key=certificate[1])
    api = Api(unix="", tcp=ApiTcp(listen="127.0.0.1:0", token_file=str(token_file), tls=tls))
    async with serve(plane, api, Timings()) as addresses:
        url = f"https://127.0.0.1:{addresses[0][1]}"
        async with ClientSession(url, connector=TCPConnector(ssl=False)) as client:
            assert "Secure" in (await log_in(client)).headers["Set-Cookie"].split("; ")


async def test_a_name_that_was_there_before_is_never_taken_over(url: str, cookie: str) -> None:
    """Neither one that another invented, nor one of an earlier login: it ends."""
    invented = "x" * 43
    async with ClientSession(url, cookies={cookie: invented}, cookie_jar=DummyCookieJar()) as attacker:
        first = await attacker.post("/v1/login", json={"token": TOKEN}, cookies={cookie: invented})
        name = first.cookies[cookie].value
        assert name != invented
        second = await attacker.post("/v1/login", json={"token": TOKEN}, cookies={cookie: name})
        again = second.cookies[cookie].value
        for value, status in ((invented, 401), (name, 401), (again, 200)):
            assert (await attacker.get("/v1/status", cookies={cookie: value})).status == status


async def test_services_of_one_host_do_not_end_each_others_logins(
    plane: Plane, browser: ClientSession, token_file: Path
) -> None:
    """A browser sends the cookies of a host to all its ports."""
    await log_in(browser)
    api = Api(unix="", tcp=ApiTcp(listen="127.0.0.1:0", token_file=str(token_file)))
    async with serve(plane, api, Timings()) as addresses:
        other = f"http://127.0.0.1:{addresses[0][1]}"
        assert (await browser.get(f"{other}/v1/status")).status == 401
        assert (await browser.post(f"{other}/v1/login", json={"token": TOKEN})).status == 204
        assert (await browser.get(f"{other}/v1/status")).status == 200
        assert await read(browser) == 200
        assert (await browser.post(f"{other}/v1/logout", headers=CHANGE)).status == 204
    assert await read(browser) == 200


async def test_two_tunnels_do_not_end_each_others_logins(plane: Plane, url: str) -> None:
    """What the browser takes for the port counts: `ssh -L` to the same port of two servers has two."""
    names = set()
    for port in (9001, 9002):
        async with ClientSession(url, cookie_jar=DummyCookieJar()) as client:
            cookies = (await log_in(client, Host=f"localhost:{port}")).cookies
            (name,) = cookies
            names.add(name)
            sent = {"Host": f"localhost:{port}", "Cookie": f"{name}={cookies[name].value}"}
            assert (await client.get("/v1/status", headers=sent)).status == 200
    assert names == {"mptcp_pm_9001", "mptcp_pm_9002"}


@pytest.mark.parametrize(
    "host", ["name", "[::1]", "name:", "name:x", "name:8;x=y", "name:\xb2", "name:123456"]
)
async def test_a_host_without_a_port(url: str, cookie: str, host: str) -> None:
    """A proxy may leave it out: then the port is the service's own."""
    async with ClientSession(url, cookie_jar=DummyCookieJar()) as client:
        assert list((await log_in(client, Host=host)).cookies) == [cookie]


async def test_a_change_needs_the_header(browser: ClientSession, plane: Plane) -> None:
    """403 without; a form of another page cannot send it."""
    await log_in(browser)
    before = len(plane.table[0xA0000001].subflows)
    for headers in ({}, {"X-Mptcp-Pm": ""}, {"X-Mptcp-Pm": "0"}):
        assert (await browser.post(SUBFLOWS, json={}, headers=headers)).status == 403
        assert (await browser.post("/v1/reload", headers=headers)).status == 403
        assert (await browser.post("/v1/logout", headers=headers)).status == 403
    assert len(plane.table[0xA0000001].subflows) == before
    assert (await browser.post(SUBFLOWS, json={}, headers=CHANGE)).status == 201
    assert await read(browser) == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "x"])
async def test_a_page_of_another_origin_gets_nothing(browser: ClientSession, site: str) -> None:
    """Another port of the same host is another origin; a bearer token is no browser's doing."""
    await log_in(browser)
    headers = {"Sec-Fetch-Site": site, "Origin": "http://127.0.0.1:1"}
    assert (await browser.get("/v1/status", headers=headers)).status == 403
    assert (await browser.post(SUBFLOWS, json={}, headers=headers | CHANGE)).status == 403
    assert (await browser.post("/v1/logout", headers=headers | CHANGE)).status == 403
    for _ in range(FAILURES_MAX + 1):
        assert (await log_in(browser, "wrong", **headers)).status == 403
    assert (await log_in(browser)).status == 204
    bearer = headers | {"Authorization": f"Bearer {TOKEN}"}
    assert (await browser.get("/v1/status", headers=bearer)).status == 200
    for own in ("same-origin", "none"):
        assert (await browser.get("/v1/status", headers={"Sec-Fetch-Site": own})).status == 200


async def test_no_origin_is_allowed_to_send_the_header(browser: ClientSession) -> None:
    """A browser asks first (CORS), and is not told that it may."""
    headers = {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-mptcp-pm",
    }
    await log_in(browser)
    response = await browser.options(SUBFLOWS, headers=headers)
    assert response.status >= 400
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"token": null}', 400),
        (b'{"token": 1}', 400),
        (b'{"token": "0123456789abcdef", "more": 1}', 400),
        (b'{"code": "x"}', 400),
        (b'{"token": ""}', 401),
        (b'{"token": "\\ud800"}', 400),
        (b'{"token": "%s"}' % (b"x" * 4000), 401),
        (b'{"token": "%s"}' % (b"x" * 9000), 413),
    ],
)
async def test_a_login_that_is_none(browser: ClientSession, body: bytes, status: int) -> None:
    """No cookie, and one clear answer, which does not repeat a token."""
    response = await browser.post("/v1/login", data=body)
    assert response.status == status
    assert "Set-Cookie" not in response.headers
    assert TOKEN not in await response.text()


async def test_tokens_cannot_be_tried_out(browser: ClientSession) -> None:
    """429 after some, for the right one too; and the log has neither."""
    with capture_logs() as records:
        for number in range(FAILURES_MAX):
            assert (await log_in(browser, f"wrong-token-{number}")).status == 401
        response = await log_in(browser)
    assert response.status == 429
    assert 0 < int(response.headers["Retry-After"]) <= FAILURES_S
    assert records
    assert "wrong-token" not in str(records)
    assert TOKEN not in str(records)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert (await browser.get("/v1/status", headers=bearer)).status == 429


async def test_tokens_cannot_be_tried_out_by_header(browser: ClientSession) -> None:
    """One limit for both ways; whoever has sent the right token from this address is let in all the same."""
    right, wrong = ({"Authorization": f"Bearer {token}"} for token in (TOKEN, OTHER))
    for _ in range(FAILURES_MAX):
        assert (await browser.get("/v1/status", headers=wrong)).status == 401
    response = await browser.get("/v1/status", headers=right)
    assert response.status == 429
    assert 0 < int(response.headers["Retry-After"]) <= FAILURES_S
    assert (await log_in(browser)).status == 429


async def test_whoever_has_the_token_is_not_locked_out(browser: ClientSession) -> None:
    """By others at the same address who try."""
    right, wrong = ({"Authorization": f"Bearer {token}"} for token in (TOKEN, OTHER))
    assert (await browser.get("/v1/status", headers=right)).status == 200
    for _ in range(2 * FAILURES_MAX):
        assert (await browser.get("/v1/status", headers=wrong)).status == 401
    assert (await browser.get("/v1/status", headers=right)).status == 200
    assert (await log_in(browser)).status == 204


async def test_a_token_is_not_taken_from_the_address(browser: ClientSession) -> None:
    """Addresses are kept by browsers and logs."""
    for where in (f"/v1/login?token={TOKEN}", f"/v1/status?token={TOKEN}"):
        assert (await browser.post(where)).status in (400, 401)
        assert (await browser.get(where)).status in (400, 401)
    assert await read(browser) == 401


async def wait_for_status(client: ClientSession, status: int) -> None:
    async def seen() -> bool:
        return await read(client) == status

    await wait_until(seen)


async def wait_until(seen: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await seen():  # noqa: ASYNC110  # the file's watch tells nobody else
            await asyncio.sleep(0.01)


async def test_a_new_token_ends_logins_with_the_old_one(
    browser: ClientSession, url: str, token_file: Path
) -> None:
    """The file is followed: rewritten or replaced, without a restart."""
    await log_in(browser)
    await asyncio.to_thread(token_file.write_text, OTHER)
    await wait_for_status(browser, 401)
    assert (await log_in(browser)).status == 401
    assert (await log_in(browser, OTHER)).status == 204
    replacement = token_file.with_name("new")
    await asyncio.to_thread(replacement.write_text, TOKEN)
    await asyncio.to_thread(replacement.rename, token_file)
    await wait_for_status(browser, 401)
    assert (await log_in(browser)).status == 204
    async with ClientSession(url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        assert await read(client) == 200


async def test_a_bad_token_file_changes_nothing(browser: ClientSession, token_file: Path) -> None:
    """Gone, or too short: the last good token stays, and so do the logins."""
    await log_in(browser)
    with capture_logs() as records:
        await asyncio.to_thread(token_file.write_text, "short")
        await wait_for_event(records, "token_not_changed")
        assert await read(browser) == 200
        records.clear()
        await asyncio.to_thread(token_file.unlink)
        await wait_for_event(records, "token_not_changed")
    assert await read(browser) == 200
    await asyncio.to_thread(token_file.write_text, OTHER)
    await wait_for_status(browser, 401)


async def wait_for_event(records: list[Any], event: str) -> None:
    async def seen() -> bool:
        return event in [record["event"] for record in records]

    await wait_until(seen)


async def test_a_stream_ends_with_its_login(
    browser: ClientSession, monkeypatch: pytest.MonkeyPatch, plane: Plane
) -> None:
    """At the next word: an event, or the comment that keeps it alive."""
    monkeypatch.setattr("pm.api.sse.KEEP_ALIVE_S", 0.01)
    await log_in(browser)
    async with browser.get("/v1/events") as stream:
        assert stream.status == 200
        await stream.content.readuntil(b"keep-alive\n\n")
        assert (await browser.post("/v1/logout", headers=CHANGE)).status == 204
        async with asyncio.timeout(10):
            assert b": keep-alive" in await stream.content.read() + b": keep-alive"
    assert (await browser.get("/v1/events")).status == 401


async def test_a_stream_ends_with_its_token(
    url: str, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever follows with a bearer token that is replaced hears no more, as requests with it are refused."""
    monkeypatch.setattr("pm.api.sse.KEEP_ALIVE_S", 0.01)
    async with ClientSession(url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        async with client.get("/v1/events") as stream, asyncio.timeout(10):
            await stream.content.readuntil(b"keep-alive\n\n")
            await stream.content.readuntil(b"keep-alive\n\n")
            await asyncio.to_thread(token_file.write_text, OTHER)
            await stream.content.read()
        assert (await client.get("/v1/events")).status == 401


@pytest.mark.parametrize("by", ["login", "bearer token"])
async def test_no_event_comes_after_a_token_was_taken_back(
    browser: ClientSession, plane: Plane, token_file: Path, by: str
) -> None:
    """Whoever has the former one hears of nothing that happens once it is taken back."""
    headers = {"Authorization": f"Bearer {TOKEN}"} if by == "bearer token" else {}
    if by == "login":
        await log_in(browser)
    async with browser.get("/v1/events", headers=headers) as stream, asyncio.timeout(10):
        assert stream.status == 200
        await stream.content.readuntil(b": subscribed\n\n")
        with capture_logs() as records:
            await asyncio.to_thread(token_file.write_text, OTHER)
            await wait_for_event(records, "token_changed")
        plane.events.tell("config", "reloaded")
        assert await stream.content.read() == b""


async def test_an_open_stream_is_use(browser: ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is only looked at does not log itself out."""
    monkeypatch.setattr("pm.api.sse.KEEP_ALIVE_S", 0.01)
    monkeypatch.setattr(access, "IDLE_S", 0.5)
    await log_in(browser)
    begin = asyncio.get_running_loop().time()
    async with browser.get("/v1/events") as stream, asyncio.timeout(10):
        while asyncio.get_running_loop().time() < begin + 1.0:
            assert await stream.content.readuntil(b"\n\n")
        assert await read(browser) == 200


async def test_the_unix_socket_needs_no_login(url: str, tmp_path: Path) -> None:
    """Its file mode says who may ask; a cookie, and where a page is from, mean nothing there."""
    headers = {"Cookie": "mptcp_pm_8642=x", "Sec-Fetch-Site": "cross-site"}
    async with ClientSession("http://x", connector=UnixConnector(str(tmp_path / "s"))) as client:
        assert await (await client.get("/v1/login")).json() == {"required": False, "logged_in": False}
        assert (await client.post(SUBFLOWS, json={}, headers=headers)).status == 201


@pytest.mark.parametrize("odd", ['NAME="', "NAME=\xff", "NAME=" + "x" * 4000, "=;;=NAME"])
async def test_odd_cookies(browser: ClientSession, cookie: str, odd: str) -> None:
    """401, as without one."""
    response = await browser.get("/v1/status", headers={"Cookie": odd.replace("NAME", cookie)})
    assert response.status == 401


async def test_the_name_is_new_each_time(browser: ClientSession, cookie: str) -> None:
    """And long enough not to be guessed."""
    names = set()
    for _ in range(20):
        cookies: SimpleCookie = (await log_in(browser)).cookies
        names.add(cookies[cookie].value)
    assert len(names) == 20
    assert all(len(name) == 43 for name in names)
