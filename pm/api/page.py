# SPDX-License-Identifier: Apache-2.0
"""The page: the files of ``pm/web`` at ``/`` and below ``/web/``. They carry no data, so need no token.

All files are read once, when somebody looks for the first time; a request only looks up a name among them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from aiohttp import ETag, web

DIRECTORY = Path(__file__).resolve().parents[1] / "web"
INDEX = "index.html"
LIBRARIES = ("preact.module.js", "hooks.module.js", "htm.module.js", "uPlot.esm.js", "uPlot.min.css")
"""In ``pm/web/vendor``, fetched by ``pm/web/fetch``."""
MEDIA_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, and asked for again by its ETag
}
_NOT_FETCHED = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>mptcp-pm</title>
<h1>The page is not complete</h1>
<p>The service runs, and so do its API and the command <code>mptcp-pm</code>. But the libraries of this page
are not in the checkout that it runs from: run <code>make setup</code> there, then reload this page.</p>
</html>
"""


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    media_type: str
    etag: str


class Page:
    """The files in a directory, by their path in it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: Mapping[str, File] = {}
        self._reading = asyncio.Lock()

    async def file(self, name: str) -> File | None:
        """One file, None if there is no such file. None is there where a library is missing."""
        async with self._reading:
            if not self._files:
                files = await asyncio.to_thread(_read, self._directory)
                if INDEX in files and all(f"vendor/{library}" in files for library in LIBRARIES):
                    self._files = files
        return self._files.get(name)


PAGE = web.AppKey("PAGE", Page)


def _read(directory: Path) -> dict[str, File]:
    return {
        str(path.relative_to(directory)): File(
            content, MEDIA_TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:32]
        )
        for path, content in _contents(directory)
    }


def _contents(directory: Path) -> Iterator[tuple[Path, bytes]]:
    """Regular files of known types; symbolic links and hidden files are left out."""
    for place, folders, names in os.walk(directory):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for path in (Path(place, name) for name in names):
            if (
                path.suffix in MEDIA_TYPES
                and not path.name.startswith(".")
                and stat.S_ISREG(path.lstat().st_mode)
            ):
                yield path, path.read_bytes()


async def get_index(request: web.Request) -> web.Response:
    if file := await request.app[PAGE].file(INDEX):
        return _answer(request, file)
    return web.Response(
        body=_NOT_FETCHED,
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        content_type="text/html",
        charset="utf-8",
        headers={**_HEADERS, "Cache-Control": "no-store"},
    )


async def get_file(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    file = await request.app[PAGE].file(name) if name != INDEX else None  # its links are those of `/`
    if file is None:
        raise web.HTTPNotFound
    return _answer(request, file)


def _answer(request: web.Request, file: File) -> web.Response:
    known = any(etag.value in (file.etag, "*") for etag in request.if_none_match or ())
    response = web.Response(status=HTTPStatus.NOT_MODIFIED) if known else web.Response(body=file.content)
    response.headers.update(_HEADERS)
    response.etag = ETag(file.etag)
    if not known:
        response.content_type = file.media_type
        response.charset = "utf-8" if file.media_type != MEDIA_TYPES[".png"] else None
    return response


PUBLIC = frozenset({get_index, get_file})
"""Served without a token."""


def add_page(app: web.Application) -> None:
    """Serve the page, without whatever else the application serves."""
    app[PAGE] = Page(DIRECTORY)
    for method in ("GET", "HEAD"):
        app.router.add_route(method, "/", get_index)
        app.router.add_route(method, "/web/{name:.+}", get_file)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """What every answer says, of the API too: of its type, of this moment, for this origin."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
