# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession, TCPConnector, UnixConnector
from structlog.testing import capture_logs

from pm.api import handlers, server
from pm.api.metrics import Timings
from pm.api.routes import ROUTES, Route
from pm.api.server import serve
from pm.api.sockets import read_token
from pm.config.model import Api, ApiProbes, ApiTcp, Tls
from pm.errors import PmError, Problem
from tests.unit.api.plane import Plane, not_connected

TOKEN = "0123456789abcdef"


@pytest.fixture
def plane() -> Plane:
    plane = Plane()
    for number in (1, 2, 3):
        plane.add(number)
    return plane


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "api.sock")


@pytest.fixture
async def client(plane: Plane, path: str) -> AsyncIterator[ClientSession]:
    async with (
        serve(plane, Api(unix=path), Timings()),
        ClientSession("http://localhost", connector=UnixConnector(path)) as session,
    ):
        yield session


async def document(response: ClientResponse, status: int = 200) -> Any:
    text = await response.text()
    assert response.status == status, text
    return json.loads(text) if text else None


async def problem(response: ClientResponse, status: int) -> Any:
    assert response.content_type == "application/problem+json"
    found = await document(response, status)
    assert found["status"] == status
    return found


# Answers


async def test_session_is_found_by_every_spelling_of_its_token(client: ClientSession) -> None:
    """Hex with and without 0x, and decimal."""
    for text in ("0xa0000001", "a0000001", str(0xA0000001)):
        found = await document(await client.get(f"/v1/sessions/{text}"))
        assert found["token"] == "0xa0000001"
        assert found["events"]


async def test_keys_are_never_shown(client: ClientSession) -> None:
    """No answer about a session has anything called a key."""
    text = await (await client.get("/v1/sessions/0xa0000001")).text()
    assert '"key' not in text
    assert "_key" not in text


async def test_subflow_is_opened_as_the_initial_one_where_nothing_else_is_said(
    client: ClientSession, plane: Plane
) -> None:
    """An empty object means: the initial subflow's addresses and port."""
    found = await document(await client.post("/v1/sessions/0xa0000001/subflows", json={}), 201)
    assert found["local"] == {"ip": "10.0.1.1", "port": 50001}
    assert found["remote"] == {"ip": "10.0.1.2", "port": 443}
    assert found["origin"] == "operator"


async def test_subflow_without_port_yet_is_accepted(client: ClientSession) -> None:
    """202, since its name still changes."""
    await document(await client.post("/v1/sessions/0xa0000001/subflows", json={"remote": "10.0.9.9"}), 202)


async def test_subflow_is_changed_and_closed_by_its_id(client: ClientSession, plane: Plane) -> None:
    """PATCH answers with the subflow as it is now; DELETE with nothing."""
    subflow = plane.table[0xA0000001].subflows[1]
    url = f"/v1/sessions/0xa0000001/subflows/{subflow.id}"
    assert (await document(await client.patch(url, json={"backup": True})))["backup"] is True
    assert await document(await client.delete(url), 204) is None
    assert subflow not in plane.table[0xA0000001].subflows
    await problem(await client.delete(url), 404)


async def test_readiness_follows_the_service(client: ClientSession, plane: Plane) -> None:
    """503 until the service is ready, and while others changed what it set."""
    assert await document(await client.get("/readyz")) == {"status": "ok", "reasons": []}
    plane.ready = False
    assert await document(await client.get("/readyz"), 503) == {"status": "starting", "reasons": []}
    plane.reasons = ("it was detached",)
    shown = {"status": "changed", "reasons": ["it was detached"]}
    assert await document(await client.get("/readyz"), 503) == shown
    status = await document(await client.get("/v1/status"))
    assert (status["ready"], status["reasons"]) == (False, ["it was detached"])


async def test_metrics_are_text(client: ClientSession) -> None:
    """/metrics is what Prometheus scrapes."""
    response = await client.get("/metrics")
    assert response.content_type == "text/plain"
    assert 'mptcp_pm_sessions{policy="sync",state="established"} 3.0' in await response.text()


# Problems


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"limit": "0"}, ["limit"]),
        ({"limit": "1001"}, ["limit"]),
        ({"limit": "x"}, ["limit"]),
        ({"limit": "9" * 5000}, ["limit"]),
        ({"state": "dead", "limt": "3"}, ["limt", "state"]),
        ({"cursor": "x"}, ["cursor"]),
    ],
)
async def test_bad_query_names_every_problem(
    client: ClientSession, query: dict[str, str], names: list[str]
) -> None:
    """400 with one entry per parameter, unknown ones too."""
    found = await problem(await client.get("/v1/sessions", params=query), 400)
    assert [p["name"] for p in found["problems"]] == names


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"", [""]),
        (b"{", [""]),
        (b"\xff", [""]),
        (b"[]", [""]),
        (b"[" * 50000, [""]),
        (b'{"lokal": 1, "remote_port": 0}', ["lokal", "remote_port"]),
        (b'{"remote_port": true}', ["remote_port"]),
        (b'{"remote_port": 443.0}', ["remote_port"]),
        (b'{"local": 5, "backup": "yes"}', ["backup", "local"]),
        (b'{"local": "10.0.0.256"}', ["local"]),
        (b'{"local": "10.0.0.1", "remote": "::1"}', ["remote"]),
    ],
)
async def test_bad_body_names_every_problem(client: ClientSession, body: bytes, names: list[str]) -> None:
    """400 with one entry per field; what is no JSON object is one problem."""
    found = await problem(await client.post("/v1/sessions/0xa0000001/subflows", data=body), 400)
    assert [p["name"] for p in found["problems"]] == names


async def test_missing_field_is_named(client: ClientSession, plane: Plane) -> None:
    """PATCH needs `backup`."""
    url = f"/v1/sessions/0xa0000001/subflows/{plane.table[0xA0000001].subflows[1].id}"
    found = await problem(await client.patch(url, json={}), 400)
    assert found["problems"] == [{"name": "backup", "message": "missing"}]


@pytest.mark.parametrize(
    "where",
    [
        "/v1/sessions/0xdeadbeef",
        "/v1/sessions/zzz",
        "/v1/policies/nosuch",
        "/v1/nosuch",
        "/web/",
        "/web/nosuch.js",
        "/v1/sessions/",
    ],
)
async def test_what_does_not_exist_is_404(client: ClientSession, where: str) -> None:
    """Unknown tokens, policies and paths alike."""
    await problem(await client.get(where), 404)


async def test_wrong_method_tells_the_right_ones(client: ClientSession) -> None:
    """405 with Allow."""
    response = await client.delete("/v1/status")
    await problem(response, 405)
    assert response.headers["Allow"] == "GET"


async def test_large_body_is_refused(client: ClientSession) -> None:
    """413 above the limit."""
    body = b'{"local": "%s"}' % (b"1" * server.BODY_LIMIT_BYTES)
    await problem(await client.post("/v1/sessions/0xa0000001/subflows", data=body), 413)


@pytest.mark.parametrize(
    ("method", "where"),
    [
        ("POST", "/v1/sessions/0xa0000001/subflows"),
        ("PATCH", "/v1/sessions/0xa0000001/subflows/0-0"),
        ("POST", "/v1/explain"),
        ("POST", "/v1/reload/dry-run"),
    ],
)
async def test_a_body_that_never_ends(
    client: ClientSession, monkeypatch: pytest.MonkeyPatch, method: str, where: str
) -> None:
    """408: nobody keeps a handler waiting."""
    monkeypatch.setattr(handlers, "BODY_TIMEOUT_S", 0.1)

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with asyncio.timeout(10.0):
        found = await problem(await client.request(method, where, data=body()), 408)
    assert found["detail"] == "the body was not there after 0.1 s"


@pytest.mark.parametrize("where", ["/v1/explain", "/v1/login", "/v1/reload/dry-run"])
async def test_a_body_that_breaks_off_is_no_failure_of_the_service(
    client: ClientSession, path: str, where: str
) -> None:
    """A stranger causes no line of the log with it, however often."""
    with capture_logs() as records:
        for _ in range(3):
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(f"POST {where} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{{".encode())
            await writer.drain()
            await document(await client.get("/healthz"))  # it has read that
            writer.close()
            await writer.wait_closed()
            await document(await client.get("/healthz"))
    assert records == []


async def test_kernel_refusal_is_a_conflict_with_the_kernels_words(
    client: ClientSession, plane: Plane
) -> None:
    """409 with the name of the error and the extended acknowledgement."""
    plane.refusal = not_connected()
    found = await problem(await client.post("/v1/sessions/0xa0000001/subflows", json={}), 409)
    assert (found["errno"], found["kernel_message"]) == ("ENOTCONN", "session not established")
    url = f"/v1/sessions/0xa0000001/subflows/{plane.table[0xA0000001].subflows[1].id}"
    await problem(await client.delete(url), 409)


async def test_bad_configuration_lists_all_its_problems(client: ClientSession, plane: Plane) -> None:
    """422 with file, line and path of each."""
    plane.bad_config = (Problem("c.yaml", 3, "policies[0].name", "missing"), Problem("c.yaml", 7, "", "odd"))
    found = await problem(await client.post("/v1/reload"), 422)
    assert [(p["line"], p["path"]) for p in found["problems"]] == [(3, "policies[0].name"), (7, "")]


@pytest.mark.parametrize(
    ("body", "name", "message"),
    [
        ('{"remote_port": 1, "remote_port": 2}', "remote_port", "given more than once"),
        ('{"local": "\\ud800"}', "local", "is not Unicode text: it has one half of a surrogate pair"),
    ],
)
async def test_bodies_that_json_allows(client: ClientSession, body: str, name: str, message: str) -> None:
    """One of two values would be taken at random, and half a character is none."""
    found = await problem(await client.post("/v1/sessions/0xa0000001/subflows", data=body), 400)
    assert {"name": name, "message": message} in found["problems"]


async def test_a_content_that_is_no_text(client: ClientSession) -> None:
    """Nothing can be written to a file that no encoding can write."""
    found = await problem(await client.post("/v1/reload/dry-run", data='{"content": "\\ud800"}'), 400)
    assert found["problems"][0]["name"] == "content"


async def test_bug_is_500_without_its_insides(
    client: ClientSession, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exception is in the log, never in the answer."""
    monkeypatch.setattr(plane, "addresses", lambda: 1 / 0)
    with capture_logs() as records:
        found = await problem(await client.get("/v1/addresses"), 500)
    assert "division" not in json.dumps(found)
    assert [(r["event"], r["path"], r["exc_info"]) for r in records] == [
        ("request_failed", "/v1/addresses", True)
    ]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_parameters_that_a_path_does_not_have(client: ClientSession, route: Route) -> None:
    """400 names them, and those that are known; what a misspelt filter lets through is no answer."""
    path = re.sub("{token}", "0xa0000001", re.sub("{(name|id)}", "x", route.path))
    for query in (
        "polcy=x",
        "polcy",
        "polcy=x&polcy=y",
        "state=created&state=established",
        "limit=1&limit=1",
    ):
        response = await client.request(route.method, f"{path}?{query}")
        if route.probe:  # whoever asks these may have parameters of its own
            assert response.status == 200
        else:
            names = {one["name"] for one in (await problem(response, 400))["problems"]}
            assert query.partition("=")[0] in names


# Events


async def read_until(response: ClientResponse, word: bytes) -> bytes:
    found = b""
    async with asyncio.timeout(5):
        while word not in found:
            chunk = await response.content.readany()
            assert chunk, found
            found += chunk
    return found


async def test_events_are_streamed(client: ClientSession, plane: Plane) -> None:
    """An event has its id, its type and its data; other types are left out where asked."""
    async with client.get("/v1/events", params={"type": "session"}) as response:
        assert response.content_type == "text/event-stream"
        await read_until(response, b"subscribed")
        plane.publish("address", "added", None)
        plane.publish("session", "created")
        text = (await read_until(response, b"data:")).decode()
    assert re.match(r"id: [0-9a-f]{8}-2\nevent: session\ndata: {", text)
    data = json.loads(text.partition("data: ")[2])
    assert (data["token"], data["action"], data["detail"]) == ("0xa0000001", "created", {"note": "x"})


async def test_stream_continues_after_the_last_event_seen(client: ClientSession, plane: Plane) -> None:
    """Last-Event-ID replays what is still held."""
    async with client.get("/v1/events") as response:
        await read_until(response, b"subscribed")
        plane.publish()
        text = (await read_until(response, b"data:")).decode()
    for _ in range(2):
        plane.publish()
    last = text.split()[1]
    async with client.get("/v1/events", headers={"Last-Event-ID": last}) as response:
        text = (await read_until(response, b"-3\nevent")).decode()
    assert re.findall(r"id: (.*)", text) == [last[:-1] + "2", last[:-1] + "3"]
    assert "lost" not in text


async def test_stream_that_continues_after_a_restart(client: ClientSession, plane: Plane) -> None:
    """The id is of a former run: the reader hears that it has missed something, and what there is now."""
    plane.publish()
    async with client.get("/v1/events", headers={"Last-Event-ID": "0123abcd-5"}) as response:
        text = (await read_until(response, b"-1\nevent")).decode()
    assert 'event: lost\ndata: {"count":null}\n\n' in text


async def test_slow_reader_is_told_what_it_lost(client: ClientSession, plane: Plane) -> None:
    """More events than the queue holds: the stream begins with their number."""
    async with client.get("/v1/events") as response:
        await read_until(response, b"subscribed")
        for _ in range(1500):
            plane.publish()
        text = await read_until(response, b"-1500\n")
    assert re.match(rb'event: lost\ndata: {"count":476}\n\nid: [0-9a-f]{8}-477\n', text)


async def test_reader_that_never_reads_holds_little(plane: Plane, path: str) -> None:
    """A stuck reader makes neither the publisher wait nor its queue grow, and shutdown ends it."""
    async with serve(plane, Api(unix=path), Timings()):
        reader, writer = await asyncio.open_unix_connection(path, limit=1024)
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"subscribed")
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # reads as well as it writes
        for _ in range(50):
            for _ in range(200):
                plane.publish()
            await asyncio.sleep(0)
        (queue,) = plane.events.readers
        assert len(queue) <= 1024
        begin = time.monotonic()
    assert time.monotonic() - begin < 2
    writer.close()


async def test_keep_alive_comments(client: ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without events is not silent."""
    monkeypatch.setattr("pm.api.sse.KEEP_ALIVE_S", 0.01)
    async with client.get("/v1/events") as response:
        await read_until(response, b": keep-alive\n\n: keep-alive")


async def test_shutdown_ends_streams_at_once(plane: Plane, path: str) -> None:
    """A service with readers of events stops in less than the two seconds that it has."""
    async with ClientSession("http://localhost", connector=UnixConnector(path)) as session:
        async with serve(plane, Api(unix=path), Timings()):
            responses = [await session.get("/v1/events") for _ in range(3)]
            begin = time.monotonic()
        assert time.monotonic() - begin < 2
        for response in responses:
            response.close()


# Sockets


async def test_unix_socket_has_mode_0660_and_goes_with_the_service(plane: Plane, path: str) -> None:
    """Its directory is made with 0750."""
    async with serve(plane, Api(unix=path), Timings()):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o750
    assert os.listdir(os.path.dirname(path)) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_probes_have_a_listener_of_their_own(plane: Plane, path: str, host: str) -> None:
    """No token is asked for, and there is nothing but health, readiness and metrics."""
    api = Api(unix=path, probes=ApiProbes(listen=f"{host}:0"))
    async with serve(plane, api, Timings()) as addresses, ClientSession() as session:
        url = f"http://{host}:{addresses[-1][1]}"
        for probe in ("/healthz", "/readyz"):
            await document(await session.get(url + probe))
        assert "mptcp_pm_build_info" in await (await session.get(url + "/metrics")).text()
        for other in ("/v1/status", "/v1/sessions", "/v1/events", "/openapi.json"):
            await problem(await session.get(url + other), 404)
        await problem(await session.post(url + "/v1/reload"), 404)
        await problem(await session.post(url + "/healthz"), 405)


async def test_a_port_of_the_probes_that_is_taken(plane: Plane, path: str) -> None:
    """The error names the key."""
    api = Api(unix=path, probes=ApiProbes(listen="127.0.0.1:0"))
    async with serve(plane, api, Timings()) as addresses:
        taken = Api(unix=path + "2", probes=ApiProbes(listen=f"127.0.0.1:{addresses[-1][1]}"))
        with pytest.raises(PmError, match=r"cannot listen on .*: correct `api.probes.listen`"):
            async with serve(plane, taken, Timings()):
                pass


async def test_socket_of_a_dead_service_is_replaced(plane: Plane, path: str) -> None:
    """A socket file that nobody listens on is no obstacle."""
    os.makedirs(os.path.dirname(path))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    async with (
        serve(plane, Api(unix=path), Timings()),
        ClientSession("http://localhost", connector=UnixConnector(path)) as session,
    ):
        await document(await session.get("/healthz"))


async def test_socket_of_a_living_service_is_left_alone(plane: Plane, path: str) -> None:
    """The second service fails and the first goes on answering."""
    async with serve(plane, Api(unix=path), Timings()):
        with pytest.raises(PmError, match="another service is listening"):
            async with serve(plane, Api(unix=path), Timings()):
                pass
        async with ClientSession("http://localhost", connector=UnixConnector(path)) as session:
            await document(await session.get("/healthz"))


@pytest.mark.parametrize("name", ["file", "directory", "x" * 120, "file/below"])
async def test_bad_socket_path_is_one_clear_error(plane: Plane, tmp_path: Path, name: str) -> None:
    """Nothing that is not a socket is removed."""
    (tmp_path / "file").write_text("precious")
    (tmp_path / "directory").mkdir()
    with pytest.raises(PmError, match="cannot listen on"):
        async with serve(plane, Api(unix=str(tmp_path / name)), Timings()):
            pass
    assert (tmp_path / "file").read_text() == "precious"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\nrest is ignored\n")
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_tcp_needs_the_token(plane: Plane, token_file: Path, host: str) -> None:
    """401 with WWW-Authenticate without it or with a wrong one; probes need none, metrics do."""
    api = Api(unix="", tcp=ApiTcp(listen=f"{host}:0", token_file=str(token_file)))
    async with serve(plane, api, Timings()) as addresses, ClientSession() as session:
        url = f"http://{host}:{addresses[0][1]}"
        await document(await session.get(f"{url}/v1/status", headers={"Authorization": f"bearer {TOKEN}"}))
        for header in (None, "Bearer wrong", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer \udcff"):
            headers = {} if header is None else {"Authorization": header}
            for where in ("/v1/status", "/metrics", "/nosuch"):
                response = await session.get(url + where, headers=headers)
                await problem(response, 401)
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
        for where in ("/healthz", "/readyz"):
            await document(await session.get(url + where))


@pytest.mark.parametrize(
    ("content", "message"), [("short\n", "shorter"), ("", "shorter"), (None, "cannot read")]
)
async def test_bad_token_file(plane: Plane, tmp_path: Path, content: str | None, message: str) -> None:
    """A missing file and a short token are refused; the error does not show the token."""
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(PmError, match=message) as error:
        async with serve(
            plane, Api(unix="", tcp=ApiTcp(listen="127.0.0.1:0", token_file=str(file))), Timings()
        ):
            pass
    assert "short\n" not in str(error.value)


@pytest.mark.parametrize("key", ["token_file", "cert", "key"])
async def test_files_of_tcp_are_regular(
    plane: Plane, token_file: Path, certificate: tuple[str, str], key: str
) -> None:
    """A FIFO is not waited for."""
    fifo = str(token_file.with_name("fifo"))
    os.mkfifo(fifo)
    files = {"token_file": str(token_file), "cert": certificate[0], "key": certificate[1], key: fifo}
    tls = Tls(cert=files["cert"], key=files["key"])
    tcp = ApiTcp(listen="127.0.0.1:0", token_file=files["token_file"], tls=tls)
    with pytest.raises(PmError, match=f"{fifo} is not a regular file"):
        async with asyncio.timeout(10), serve(plane, Api(unix="", tcp=tcp), Timings()):
            pass


def test_a_device_is_no_token_file() -> None:
    """It has enough characters."""
    with pytest.raises(PmError, match="/dev/zero is not a regular file"):
        read_token("/dev/zero")


async def test_bad_certificate_and_bad_address(plane: Plane, token_file: Path) -> None:
    """Each is one clear error, and nothing keeps listening."""
    tls = Tls(cert="/nonexistent", key="/nonexistent")
    for tcp, message in (
        (ApiTcp(listen="127.0.0.1:0", token_file=str(token_file), tls=tls), "certificate"),
        (ApiTcp(listen="127.0.0.1", token_file=str(token_file)), "listen"),
        (ApiTcp(listen="192.0.2.1:1", token_file=str(token_file)), "cannot listen on"),
    ):
        with pytest.raises(PmError, match=message):
            async with serve(plane, Api(unix="", tcp=tcp), Timings()):
                pass


async def test_https(plane: Plane, token_file: Path, certificate: tuple[str, str]) -> None:
    """With a certificate TCP speaks TLS."""
    tls = Tls(cert=certificate[0], key=certificate[1])
    api = Api(unix="", tcp=ApiTcp(listen="127.0.0.1:0", token_file=str(token_file), tls=tls))
    async with (
        serve(plane, api, Timings()) as addresses,
        ClientSession(connector=TCPConnector(ssl=False)) as session,
    ):
        await document(await session.get(f"https://127.0.0.1:{addresses[0][1]}/healthz"))
