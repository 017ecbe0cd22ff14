# SPDX-License-Identifier: Apache-2.0
"""A service of another version: it was not restarted when the package was upgraded."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from pm import __version__
from pm.cli.main import main

Json = dict[str, Any]
COMMANDS = ("top", "top --once", "sessions", "policies", "addresses", "session 0x1", "why 0x12345678")


class Old(BaseHTTPRequestHandler):
    """Knows its status, and of other paths what ``answers`` has."""

    version = "0.0.9"
    answers: ClassVar[Json] = {}

    def do_GET(self) -> None:
        config = {"path": "/etc/mptcp-pm.yaml", "last_reload": {"ok": True}}
        status = {
            "version": self.version,
            "datapath": "netlink",
            "pid": 1,
            "started_at": "",
            "config": config,
        }
        path = self.path.partition("?")[0]
        found = {"/v1/status": status, **self.answers}.get(path)
        problem = {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": f"no such path: {path}",
        }
        content = json.dumps(problem if found is None else found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/problem+json" if found is None else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Old) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("command", ["status", *COMMANDS])
@pytest.mark.parametrize("knows_paths", [False, True])
def test_it_is_one_line(
    url: str,
    command: str,
    knows_paths: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whether it has not the path that a command asks for, or says less than the command shows."""
    less = {"interfaces": [{"name": "eth0"}], "policies": [{"name": "a"}], "sessions": [{"token": "0x1"}]}
    paths = ("interfaces", "policies", "sessions", "addresses", "sessions/0x1", "sessions/0x12345678/why")
    monkeypatch.setattr(Old, "answers", {f"/v1/{path}": less for path in paths} if knows_paths else {})
    assert main(["--url", url, *command.split()]) == 1
    assert capsys.readouterr() == (
        "",
        f"mptcp-pm: the service has version 0.0.9, and this command {__version__}: restart the service\n",
    )


def test_a_path_that_the_same_version_does_not_have(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own words then."""
    monkeypatch.setattr(Old, "version", __version__)
    assert main(["--url", url, "policies"]) == 1
    assert capsys.readouterr().err == "mptcp-pm: no such path: /v1/policies\n"
