# SPDX-License-Identifier: Apache-2.0
"""A small synchronous client of the REST API, over its Unix socket or over TCP."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pm.errors import ConfigError, PmError, Problem, UnknownPath

TIMEOUT_S = 30.0
TOKEN_MAX = 4096  # as the service has it


def error_of(problem: Mapping[str, Any]) -> PmError:
    """Turn a problem document (RFC 9457) into the error that it describes."""
    problems = problem.get("problems", ())
    if any("file" in p for p in problems):
        return ConfigError([Problem(**p) for p in problems])
    if problem.get("type") == "about:blank" and problem.get("status") == HTTPStatus.NOT_FOUND:
        return UnknownPath(problem.get("detail") or problem["title"])
    lines = [f"{p['name']}: {p['message']}".removeprefix(": ") for p in problems]
    return PmError("; ".join(lines) or problem.get("detail") or problem["title"])


@dataclass(frozen=True, slots=True)
class Target:
    """Where the service is: at ``url`` (with ``token_file``) if given, else on the Unix socket."""

    socket_path: str
    url: str | None = None
    token_file: str | None = None

    def __str__(self) -> str:
        return self.url or self.socket_path

    @property
    def option(self) -> str:
        """The option that named it."""
        return "--url" if self.url else "--socket"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """One connection to the service. Every failure is a PmError of one line."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._headers = {"Accept": "application/json"}
        self._prefix = ""
        if target.token_file:
            self._headers["Authorization"] = f"Bearer {_read_token(target.token_file)}"
        self._connection = self._connect() if target.url else _UnixConnection(target.socket_path)

    def _connect(self) -> http.client.HTTPConnection:
        try:
            url = urlsplit(self._target.url or "")
            port = url.port
        except ValueError as e:
            raise PmError(f"{self._target.url} is not a URL: {e}", "write `http://127.0.0.1:8642`") from e
        if url.scheme not in ("http", "https") or not url.hostname:
            raise PmError(f"{self._target.url} is not an http(s) URL", "write `http://127.0.0.1:8642`")
        self._prefix = url.path.rstrip("/")
        if url.scheme == "http":
            return http.client.HTTPConnection(url.hostname, port, timeout=TIMEOUT_S)
        return http.client.HTTPSConnection(
            url.hostname, port, timeout=TIMEOUT_S, context=ssl.create_default_context()
        )

    def get(self, path: str, **query: str | int | None) -> Any:
        """Fetch a document. Raises PmError if the service refuses or cannot be reached."""
        given = {name: value for name, value in query.items() if value is not None}
        return self.request("GET", f"{path}?{urlencode(given)}" if given else path)

    def text(self, path: str) -> str:
        """Fetch what is no JSON. Raises as ``get`` does."""
        with self._errors():
            response = self._send("GET", path, None)
            content = response.read()
        if response.status != 200:
            self._document(response, content)
        return content.decode(errors="replace")

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request; the answer's document, or None if it has none. Raises as ``get`` does."""
        with self._errors():
            response = self._send(method, path, body)
            text = response.read()
        return self._document(response, text)

    def status(self) -> dict[str, Any]:
        """The status of the service. Raises as ``get`` does, also where another server has answered."""
        match found := self.get("/v1/status"):
            case {"version": str(), "datapath": str(), "config": {"path": str()}}:
                return dict(found)
        raise self.not_ours()

    def sessions(self, limit: int | None = None, **query: str | None) -> Iterator[dict[str, Any]]:
        """All sessions that match, at most ``limit``, fetched page by page."""
        left = limit
        cursor: str | None = None
        while left is None or left > 0:
            size = 1000 if left is None else min(left, 1000)
            page = self.get("/v1/sessions", limit=size, cursor=cursor, **query)
            yield from page["sessions"]
            left = None if left is None else left - len(page["sessions"])
            cursor = page["next"]
            if cursor is None:
                return

    def events(self, kind: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (event name, data) as events happen. Raises PmError, also when the service stops."""
        path = f"/v1/events?{urlencode({'type': kind})}" if kind else "/v1/events"
        name = ""
        with self._errors():
            response = self._send("GET", path, None)
            if response.status != 200:
                self._document(response, response.read())
            while line := response.readline():
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    yield name, json.loads(value)
        raise PmError("the event stream ended: the service stopped or restarted", "run the command again")

    def close(self) -> None:
        self._connection.close()

    def _send(self, method: str, path: str, body: Any) -> http.client.HTTPResponse:
        payload = None if body is None else json.dumps(body)
        headers = self._headers | ({"Content-Type": "application/json"} if payload else {})
        self._connection.request(method, self._prefix + path, payload, headers)
        return self._connection.getresponse()

    def _document(self, response: http.client.HTTPResponse, text: bytes) -> Any:
        try:
            document = json.loads(text) if text else None
        except ValueError as e:
            raise self.not_ours() from e
        is_problem = response.headers.get_content_type() == "application/problem+json"
        if is_problem and isinstance(document, dict):
            raise error_of(document)
        if response.status >= 400 and response.status != 503:
            raise self.not_ours()
        return document

    def not_ours(self) -> PmError:
        return PmError(f"the server at {self._target} is not mptcp-pm", f"correct {self._target.option}")

    def _errors(self) -> _Errors:
        return _Errors(self._target)


class _Errors:
    """Translates what sockets and http.client raise into a line that says how to fix it."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        match error:
            case FileNotFoundError() | ConnectionRefusedError():
                where = f"nothing answers at {self._target}"
                if self._target.url:
                    remedy = "set `api.tcp` in its configuration, or correct --url"
                    raise PmError(f"no service with TCP is there: {where}", remedy) from error
                raise PmError(
                    f"the service is not running: {where}",
                    "start it with `mptcp-pm run --config FILE`, or give its socket with --socket",
                ) from error
            case PermissionError():
                url = self._target.url
                remedy = "a firewall may refuse it" if url else "run this command as root (sudo)"
                raise PmError(f"permission denied: {self._target}", remedy) from error
            case ssl.SSLError():
                raise PmError(
                    f"cannot make a trusted TLS connection to {self._target}: {error.strerror or error}",
                    "set SSL_CERT_FILE to the file of the certificate authority",
                ) from error
            case TimeoutError():
                raise PmError(f"{self._target} did not answer within {TIMEOUT_S:.0f} s") from error
            case http.client.HTTPException() | BrokenPipeError() | ConnectionResetError():
                raise PmError(
                    f"{self._target} closed the connection", "check whether the service is still running"
                ) from error
            case OSError():
                raise PmError(f"{self._target}: {error.strerror or error}") from error


def segment(text: str) -> str:
    """Quote text so that it is one segment of a path."""
    return quote(text, safe=":.[]-")


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.readline(TOKEN_MAX).strip()
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not ASCII"
        raise PmError(f"cannot read the token file {path}: {reason}", "correct --token-file") from e
