# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest

from pm.cli import browser
from pm.cli.main import main
from tests.unit.cli.test_main import MPTCP_PM, Server, on_a_terminal

NOBODY = 65534


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in which every user may write."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def desktop(place: Path) -> dict[str, str]:
    """An environment in which the browser writes down how it was started."""
    opened, program = place / "opened", place / "xdg-open"
    words = 'id -u; echo "$1"; echo "$HOME"'
    program.write_text(f"#!/bin/sh\n({words}) > {opened}.new\nmv {opened}.new {opened}\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{place}:{os.environ['PATH']}", "DISPLAY": ":0"}


def test_it_serves_the_page_until_ctrl_c(server: Server, place: Path, desktop: dict[str, str]) -> None:
    """One line with the address, a browser that opens it, a login by its code; then exit status 0."""
    with on_a_terminal("--socket", server.socket, "web", environment=desktop) as process:
        assert process.stdout
        line = process.stdout.readline()
        found = re.search(r"(http://127\.0\.0\.1:\d+/)#code=([\w-]+)", line)
        assert found, process.communicate()
        url, code = found.groups()
        request = urllib.request.Request(
            f"{url}v1/login", json.dumps({"code": code}).encode(), {"X-Mptcp-Pm": "1"}
        )
        answer: HTTPResponse
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 204
            cookie = answer.headers["Set-Cookie"].partition(";")[0]
        request = urllib.request.Request(f"{url}v1/status", headers={"Cookie": cookie})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["version"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    assert wait_for_file(place / "opened").splitlines()[1] == f"{url}#code={code}"


@pytest.mark.parametrize(("options", "display"), [(["--no-browser"], ":0"), ([], "")])
def test_where_no_browser_is_opened(
    server: Server, place: Path, desktop: dict[str, str], options: list[str], display: str
) -> None:
    """Asked not to, or without a desktop."""
    environ = {**desktop, "DISPLAY": display}
    environ.pop("WAYLAND_DISPLAY", None)
    with on_a_terminal("web", "--socket", server.socket, *options, environment=environ) as process:
        assert process.stdout
        assert "#code=" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert not (place / "opened").exists()


def wait_for_file(file: Path) -> str:
    done = subprocess.run(["timeout", "20", "sh", "-c", f"until [ -e {file} ]; do sleep 0.05; done"])
    assert done.returncode == 0
    return file.read_text()


def test_the_browser_is_the_users(
    place: Path, desktop: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened with the address as it was printed; by root for whoever became root."""
    monkeypatch.setenv("PATH", desktop["PATH"])
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    browser.open_browser("http://127.0.0.1:1/#code=x", user, desktop)
    uid, address, home = wait_for_file(place / "opened").splitlines()
    assert (int(uid), address) == (user, "http://127.0.0.1:1/#code=x")
    assert home == (os.path.expanduser("~nobody") if user == NOBODY else os.environ["HOME"])


def test_no_browser_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The printed address has to do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    browser.open_browser("http://127.0.0.1:1/", os.geteuid(), {"DISPLAY": ":0", "PATH": str(tmp_path)})
    browser.open_browser(
        "http://127.0.0.1:1/", 4_000_000_000, {"WAYLAND_DISPLAY": "x", "PATH": str(tmp_path)}
    )


@pytest.mark.parametrize(
    ("euid", "environ", "login", "user"),
    [
        (1000, {"SUDO_UID": "0"}, "1001", 1000),
        (0, {"SUDO_UID": "1000"}, "1001", 1000),
        (0, {"PKEXEC_UID": "1000"}, "1001", 1000),
        (0, {}, "1001", 1001),
        (0, {"SUDO_UID": "x"}, "1001", 1001),
        (0, {"SUDO_UID": "99999999999"}, "4294967295", 0),
        (0, {}, None, 0),
    ],
)
def test_who_is_at_the_keyboard(
    euid: int,
    environ: dict[str, str],
    login: str | None,
    user: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """By what sudo and pkexec say, then by the login; another's process is that user's."""
    if login:
        (tmp_path / "loginuid").write_text(login)
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    monkeypatch.setattr(browser, "LOGIN_UID", tmp_path / "loginuid")
    assert browser.invoking_user(environ) == user


def test_bad_input_is_one_line(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No service, a service elsewhere, a port that is none or is used."""
    assert main(["web", "--socket", str(tmp_path / "nosuch")]) == 1
    assert "the service is not running" in capsys.readouterr().err
    assert main(["web", "--url", "https://host:8642"]) == 1
    assert "open https://host:8642/ in a browser" in capsys.readouterr().err
    used = server.url.rpartition(":")[2]
    command = [*MPTCP_PM, "web", "--socket", server.socket, "--port", used]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("Address already in use: correct `--port`\n")
    for port in ("0", "65536", "x", "9" * 5000):
        with pytest.raises(SystemExit):
            main(["web", "--port", port])
        assert "is not a port: 1 to 65535" in capsys.readouterr().err


def test_other_commands_do_not_load_the_server() -> None:
    """aiohttp takes longer to load than most commands take."""
    code = "import sys, pm.cli.commands; print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
