# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession

from pm.api import page
from pm.api.metrics import Timings
from pm.api.server import serve
from pm.config.model import Api, ApiTcp
from tests.unit.api.plane import Plane

TOKEN = "0123456789abcdef"


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page of the tests, complete."""
    directory = tmp_path / "web"
    (directory / "vendor").mkdir(parents=True)
    (directory / "index.html").write_text("<!doctype html><title>the page</title>")
    (directory / "main.js").write_text("export {};")
    for name in page.LIBRARIES:
        (directory / "vendor" / name).write_text(name)
    monkeypatch.setattr(page, "DIRECTORY", directory)
    return directory


@pytest.fixture
async def port(web: Path, tmp_path: Path) -> AsyncIterator[int]:
    """Of a service over TCP, which needs a token."""
    (tmp_path / "token").write_text(TOKEN)
    api = Api(unix="", tcp=ApiTcp(listen="127.0.0.1:0", token_file=str(tmp_path / "token")))
    async with serve(Plane(), api, Timings()) as addresses:
        yield addresses[0][1]


@pytest.fixture
async def client(port: int) -> AsyncIterator[ClientSession]:
    async with ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session


async def ask(port: int, target: str) -> bytes:
    """The answer to a request whose target no client has tidied up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def test_the_page_needs_no_token(client: ClientSession) -> None:
    """Its files do not; everything else does."""
    for where, media_type, text in (
        ("/", "text/html", "<!doctype html><title>the page</title>"),
        ("/web/main.js", "text/javascript", "export {};"),
        ("/web/vendor/uPlot.min.css", "text/css", "uPlot.min.css"),
    ):
        response = await client.get(where)
        assert (response.status, response.content_type) == (200, media_type)
        assert await response.text() == text
    for where in ("/v1/status", "/metrics", "/web", "/nosuch", "/web/"):
        assert (await client.get(where)).status == 401


async def test_the_policy_forbids_everything_inline(client: ClientSession) -> None:
    """Scripts, styles and connections are of this origin; nobody frames the page or changes its base."""
    headers = (await client.get("/")).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


async def test_data_are_not_kept_by_browsers(client: ClientSession) -> None:
    """Answers of the API, refusals too."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for response in (await client.get("/v1/status"), await client.get("/v1/status", headers=headers)):
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_file_is_sent_once(client: ClientSession) -> None:
    """304 without a body while it is the same; another ETag asks for all of it."""
    first = await client.get("/web/main.js")
    assert first.headers["Cache-Control"] == "no-cache"
    etag = first.headers["ETag"]
    for given in (etag, f'"other", W/{etag}', "*"):
        again = await client.get("/web/main.js", headers={"If-None-Match": given})
        assert (again.status, await again.read(), again.headers["ETag"]) == (304, b"", etag)
    other = await client.get("/web/main.js", headers={"If-None-Match": '"other"'})
    assert (other.status, await other.text()) == (200, "export {};")


async def test_head(client: ClientSession) -> None:
    """The headers of GET, without the body."""
    for where in ("/", "/web/main.js"):
        got, asked = await client.get(where), await client.head(where)
        assert (asked.status, await asked.read()) == (200, b"")
        for header in ("Content-Length", "Content-Type", "ETag", "Content-Security-Policy"):
            assert asked.headers[header] == got.headers[header]


@pytest.mark.parametrize(
    "target",
    [
        "/web/../token",
        "/web/%2e%2e/token",
        "/web/..%2ftoken",
        "/web/%2e%2e%2ftoken",
        "/web/vendor/../../token",
        "/web//etc/passwd",
        "/web/%2fetc%2fpasswd",
        "/web/..\\token",
        "/web/main.js%00.css",
        "/web/./main.js",
        "/web/vendor",
        "/web/index.html",
        "/web/.hidden.js",
        "/web/link.js",
        "/web/folder/passwd.js",
        "/web/secret.txt",
        "/web/fifo.js",
        "/web/../v1/status",
        "/web/%2e%2e/v1/status",
        "//v1/status",
        "/web/..;/v1/status",
    ],
)
async def test_nothing_else_is_served(web: Path, port: int, tmp_path: Path, target: str) -> None:
    """No path leads out of the directory, and links, hidden files and other types are not there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "passwd.js").write_text("S3CR3T")
    for name in (".hidden.js", "secret.txt"):
        (web / name).write_text("S3CR3T")
    (web / "link.js").symlink_to(elsewhere / "passwd.js")
    (web / "folder").symlink_to(elsewhere)
    os.mkfifo(web / "fifo.js")
    answer = await ask(port, target)
    assert answer.split(b" ", 2)[1] in (b"400", b"401", b"404")
    assert b"S3CR3T" not in answer
    assert TOKEN.encode() not in answer
    assert b"root:" not in answer


async def test_without_libraries_it_says_what_to_do(web: Path, client: ClientSession) -> None:
    """An incomplete checkout has a page that says so, until it is complete."""
    shutil.move(web / "vendor", web.parent / "vendor")
    response = await client.get("/")
    assert (response.status, response.content_type) == (503, "text/html")
    assert "make setup" in await response.text()
    assert "script-src 'self'" in response.headers["Content-Security-Policy"]
    assert (await client.get("/web/main.js")).status == 404
    shutil.move(web.parent / "vendor", web / "vendor")
    assert (await client.get("/")).status == 200


async def test_the_checkout_has_the_whole_page() -> None:
    """What `make setup` fetched is what the lock file names; modules import one another by paths."""
    found = page.Page(page.DIRECTORY)
    assert await found.file("index.html")
    for library in page.LIBRARIES:
        assert await found.file(f"vendor/{library}")
    hooks = (page.DIRECTORY / "vendor/hooks.module.js").read_text()
    assert 'from"./preact.module.js"' in hooks
    for module in page.DIRECTORY.rglob("*.js"):
        assert 'from"preact"' not in module.read_text().replace(" ", "")
    lock = (page.DIRECTORY / "package-lock.json").read_text()
    assert (page.DIRECTORY / "vendor/package-lock.json").read_text() == lock
    packages = json.loads(lock)["packages"]
    assert all(package["integrity"].startswith("sha512-") for name, package in packages.items() if name)
    assert not any("resolved" in package for package in packages.values())


def copy_of_fetch(tmp_path: Path) -> Path:
    """The script with what it reads, and an `npm` that is told what to do."""
    for name in ("fetch", "package.json", "package-lock.json"):
        shutil.copy(page.DIRECTORY / name, tmp_path)
    return tmp_path / "fetch"


def fetch(script: Path, npm: str | None) -> subprocess.CompletedProcess[str]:
    programs = script.parent / "bin"
    programs.mkdir(exist_ok=True)
    if npm:
        (programs / "npm").write_text(f"#!/bin/sh\n{npm}\n")
        (programs / "npm").chmod(0o755)
    for program in ("cmp", "dirname", "mktemp", "rm", "cp", "sh"):
        found = shutil.which(program)
        assert found
        if not (programs / program).exists():
            (programs / program).symlink_to(found)
    bash = shutil.which("bash") or "bash"
    return subprocess.run(
        [bash, script], env={"PATH": str(programs)}, capture_output=True, text=True, timeout=30
    )


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    """Neither npm nor a network is needed then; a changed lock file needs them."""
    script = copy_of_fetch(tmp_path)
    shutil.copytree(page.DIRECTORY / "vendor", tmp_path / "vendor")
    done = fetch(script, None)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "package-lock.json").write_text("{}")
    done = fetch(script, None)
    assert done.returncode == 1
    assert done.stderr == (
        "pm/web/fetch: npm is needed to fetch the libraries of the page: apt-get install npm\n"
    )


def test_a_fetch_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """Whatever npm refuses, a wrong hash say, nothing is half there."""
    script = copy_of_fetch(tmp_path)
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor/old.js").write_text("old")
    assert fetch(script, "exit 3").returncode == 3
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"fetch", "package.json", "package-lock.json", "bin", "vendor"}
    assert [path.name for path in (tmp_path / "vendor").iterdir()] == ["old.js"]
