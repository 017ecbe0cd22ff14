# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from pm import VERSION_DATE
from pm.api.metrics import Timings
from pm.api.server import serve
from pm.cli import why_subject
from pm.cli.client import Client, Target
from pm.cli.commands import HANDLERS
from pm.cli.main import main
from pm.cli.man import man_page
from pm.cli.parser import EXIT_STATUS, build_parser
from pm.cli.report import Report, _add_service
from pm.config.model import Api, ApiTcp
from pm.errors import Problem
from pm.linux.host.system_check import SystemCheck
from tests.unit.api.plane import Plane, not_connected

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "0123456789abcdef"
MPTCP_PM = [sys.executable, "-m", "pm.cli.main"]


class Server:
    """The real server in a thread of its own, with a control plane in memory behind it."""

    def __init__(self, directory: Path) -> None:
        self.plane = Plane()
        self.plane.add(1)
        self.plane.add(2, None)
        self.socket = str(directory / "api.sock")
        self.token_file = directory / "token"
        self.token_file.write_text(TOKEN)
        self.token_file.chmod(0o600)
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        api = Api(unix=self.socket, tcp=ApiTcp(listen="127.0.0.1:0", token_file=str(self.token_file)))
        async with serve(self.plane, api, Timings()) as addresses:
            self.url = f"http://127.0.0.1:{addresses[1][1]}"
            self._ready.set()
            await self._stop.wait()

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def publish(self) -> None:
        self._loop.call_soon_threadsafe(self.plane.publish)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def environment(server: Server) -> dict[str, str]:
    return {**os.environ, "MPTCP_PM_SOCKET": server.socket, "PYTHONPATH": str(ROOT)}


# Looking


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("status", ["netlink", "/etc/mptcp-pm.yaml", "ready", "open refused"]),
        ("sessions", ["0xa0000001", "fullmesh: 10.0.2.1 × 10.0.2.2", "1.5 ms", "1000 B"]),
        (
            "session 0xa0000001",
            ["established", "10.0.2.2:? (id 2)", "ENETUNREACH", "for 3.2 s", "122.1 KiB/s"],
        ),
        ("policies", ["/system.slice/rsync*.service", "subflows_per_pair: 1"]),
        ("addresses", ["fe80::1/64", "link-local", "eth0"]),
    ],
)
def test_tables_for_people(
    server: Server, capsys: pytest.CaptureFixture[str], command: str, words: list[str]
) -> None:
    """Each command shows what matters, uncut where the output is no terminal."""
    assert main(["--socket", server.socket, *command.split()]) == 0
    out = capsys.readouterr().out
    assert [word for word in words if word not in out] == []


@pytest.mark.parametrize(
    "command",
    ["status", "sessions", "session 0xa0000001", "policies", "addresses", "explain --cgroup / --to ::1"],
)
def test_a_pipe_gets_no_padding(server: Server, environment: dict[str, str], command: str) -> None:
    """No blank at the end of a line, and no escape sequence."""
    done = subprocess.run([*MPTCP_PM, *command.split()], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line != line.rstrip()] == []
    assert "\x1b" not in done.stdout


LONG = "/kubepods.slice/" + "pod-0123456789abcdef" * 20 + ".slice"


@pytest.mark.parametrize("command", ["sessions", "session 0xa0000001", "policies", "addresses", "status"])
def test_a_pipe_gets_each_thing_in_one_line(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """However long a name or a path is: `grep` and `awk` find it."""
    plane = server.plane
    monkeypatch.setattr(plane, "cgroup_path", lambda session: LONG)
    monkeypatch.setattr(plane, "attached", lambda: dict.fromkeys((LONG, f"{LONG}2"), "sync"))
    monkeypatch.setattr(plane, "addresses", lambda: [replace(a, why=LONG) for a in Plane().addresses()])
    status = replace(plane.status(), config_path=LONG)
    monkeypatch.setattr(plane, "status", lambda: status)
    assert main(["--socket", server.socket, *command.split()]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if LONG in line] != []


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
@pytest.mark.parametrize("command", ["top", "sessions", "policies"])
def test_colours_that_are_forced_do_not_make_a_terminal(
    environment: dict[str, str], variable: str, command: str
) -> None:
    """Where CI sets this, a pipe is still a pipe: `top` ends, and no line is cut."""
    environment = {**environment, variable: "1", "COLUMNS": "40"}
    done = subprocess.run(
        [*MPTCP_PM, command],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b[?" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) > 60


def test_each_cgroup_of_a_policy_is_a_line(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a glob there are many; what is odd in their names is escaped."""
    cgroups = ("/system.slice/rsync1.service", "/system.slice/rsync\n2.service")
    monkeypatch.setattr(server.plane, "attached", lambda: dict.fromkeys(cgroups, "sync"))
    assert main(["--socket", server.socket, "policies"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines if "/rsync" in line.split()[-1]] == [
        "/system.slice/rsync\\n2.service", "/system.slice/rsync1.service",
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["status", "sessions", "policies", "addresses"])
def test_a_narrow_terminal(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A line for each cell in place of columns of a few letters: no word is broken that fits."""
    monkeypatch.setattr("pm.cli.tables.console", lambda: Console(width=40, highlight=False))
    assert main(["--socket", server.socket, *command.split()]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40
    assert "…" not in out
    words = {
        "status": ["  /etc/mptcp-pm.yaml"],
        "sessions": ["0xa0000001", "  10.0.2.1:50000 → 10.0.2.2:443  ", "    1.5 ms  1000 B   2.0 KiB"],
        "policies": ["PATH MANAGER  fullmesh", "SESSIONS  1", "CGROUP  /system.slice/rsync*.service"],
        "addresses": ["ADDRESS  fe80::1/64", "INTERFACE  eth0", "USED  no"],
    }
    assert [word for word in words[command] if word not in out] == []


@pytest.mark.parametrize("command", ["sessions", "policies", "sessions --json"])
def test_an_output_without_utf_8(environment: dict[str, str], command: str) -> None:
    """A question mark, and no traceback."""
    done = subprocess.run(
        [*MPTCP_PM, *command.split()],
        env={**environment, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_session_fits_80_columns(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subflow has two lines, the first with the id that `subflow remove` takes."""
    monkeypatch.setattr("pm.cli.tables.console", lambda: Console(width=80, highlight=False))
    assert main(["--socket", server.socket, "session", "0xa0000001"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    first = next(i for i, line in enumerate(lines) if line.startswith("10.0.2.1:50000-10.0.2.2:443  "))
    assert lines[first].endswith("  established, fullmesh")
    assert lines[first + 1].split() == ["1", "→", "2", *lines[first + 1].split()[3:]]
    assert "122.1 KiB/s" in lines[first + 1]
    assert lines[first + 2] == ""


def test_a_session_without_policy_does_not_read_like_the_path_manager_none(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither here nor in the list."""
    for command in (["session", "0xa0000002"], ["sessions"]):
        assert main(["--socket", server.socket, *command]) == 0
        out = capsys.readouterr().out
        assert "no policy" in out
        assert "none" not in out


@pytest.mark.parametrize(
    "command", ["status", "sessions", "session a0000001", "policies", "addresses", "reload"]
)
def test_json_for_programs(server: Server, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """--json prints the service's document; the socket may be named after the command too."""
    assert main([*command.split(), "--socket", server.socket, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_sessions_follow_every_page(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """--json lists all sessions, however many pages that takes; a table says what it leaves out."""
    for number in range(3, 1203):
        server.plane.add(number)
    assert main(["--socket", server.socket, "sessions", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["sessions"]) == 1202
    assert main(["--socket", server.socket, "sessions", "--limit", "2"]) == 0
    captured = capsys.readouterr()
    assert "0xa0000003" not in captured.out
    assert "first 2 sessions" in captured.err


def test_sessions_are_filtered(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Policy, cgroup and state go to the service."""
    command = [
        "--socket",
        server.socket,
        "sessions",
        "--json",
        "--policy",
        "sync",
        "--cgroup",
        "/system.slice",
    ]
    assert main([*command, "--state", "established"]) == 0
    assert [s["token"] for s in json.loads(capsys.readouterr().out)["sessions"]] == ["0xa0000001"]


def test_markup_in_names_is_only_text(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """A cgroup whose name looks like markup is printed as it is."""
    server.plane.paths[0xA0000001] = "/a[red]b[/nosuch]"
    assert main(["--socket", server.socket, "sessions"]) == 0
    assert "/a[red]b[/nosuch]" in capsys.readouterr().out


# Acting


def test_subflows_by_hand(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """add, backup and remove act on the subflow named."""
    session = server.plane.table[0xA0000001]
    prefix = ["--socket", server.socket, "subflow"]
    assert main([*prefix, "add", "0xa0000001", "--local", "10.0.3.1", "--port", "444", "--backup"]) == 0
    added = session.subflows[-1]
    assert (added.local, added.remote, added.remote_port, added.backup) == ("10.0.3.1", "10.0.1.2", 444, True)
    assert added.id in capsys.readouterr().out
    assert main([*prefix, "backup", "0xa0000001", added.id, "off"]) == 0
    assert added.backup is False
    assert main([*prefix, "remove", "0xa0000001", added.id]) == 0
    assert added not in session.subflows


def test_token_over_tcp(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """--url with the token file works, without it the error says what is needed."""
    assert main(["--url", server.url, "--token-file", str(server.token_file), "status", "--json"]) == 0
    assert main(["--url", server.url, "status"]) == 1
    assert "a bearer token is required" in capsys.readouterr().err


# Errors


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--socket", "/nonexistent/s", "status"], "mptcp-pm run --config FILE"),
        (["--socket", "/dev/null", "status"], "/dev/null"),
        (["--socket", "x" * 200, "status"], "AF_UNIX path too long"),
        (["--url", "ftp://x", "status"], "is not an http(s) URL"),
        (["--url", "http://x:port", "status"], "is not a URL"),
        (["--url", "http://127.0.0.1:1", "status"], "set `api.tcp` in its configuration, or correct --url"),
        (["--socket", "/nonexistent/s", "sessions", "--watch"], "mptcp-pm run --config FILE"),
        (["--url", "http://x", "--token-file", "/nonexistent", "status"], "token file"),
        (["--url", "http://nosuch.invalid", "status"], "nosuch.invalid"),
    ],
)
def test_unreachable_service_is_one_line(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 1 and what to do, without a traceback."""
    assert main(argv) == 1
    assert words in one_error(capsys)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("session 0xdead", "no session 0xdead"),
        ("session ../status", "no session ../status"),
        ("subflow remove 0xa0000001 nosuch", "no subflow nosuch"),
        ("subflow add 0xa0000001 --local 10.0.0.256", "local: '10.0.0.256' is not an IP address"),
        ("sessions --limit 5 --policy nosuch --json", "no policy 'nosuch': `mptcp-pm policies` shows"),
        ("sessions --watch --policy nosuch", "no policy 'nosuch'"),
        ("reload --dry-run /nonexistent", "/nonexistent: does not exist: create it"),
        ("explain --cgroup / --to foo", "'foo' is not an IP address with or without a port"),
        ("sessions --limit 5 --cgroup /nosuch --json", "no cgroup '/nosuch': `systemd-cgls` shows"),
        (f"sessions --cgroup /{'x' * 300}", "no cgroup '/xxx"),
        ("sessions --cgroup there", "no cgroup 'there'"),
        ("sessions --cgroup a.service", "'a.service' is the name of a unit"),
        ("explain --cgroup a.service --to 10.0.0.1", "'a.service' is the name of a unit"),
        ("sessions --limit 5 --cgroup ControlGroup=/there --json", ""),
        ("sessions --limit 5 --cgroup 0::/there --json", ""),
    ],
)
def test_what_the_service_refuses_is_one_line(
    server: Server,
    argv: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The service's own words, exit status 1; a filter that matches nothing is no error."""
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(why_subject, "find_cgroup_root", lambda: tmp_path)
    status = main(["--socket", server.socket, *argv.split()])
    if words:
        assert status == 1
        assert words in one_error(capsys)
    else:
        assert (status, json.loads(capsys.readouterr().out)) == (0, {"sessions": []})


def test_kernels_refusal_is_shown(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The error's name and the kernel's explanation."""
    server.plane.refusal = not_connected()
    assert main(["--socket", server.socket, "subflow", "add", "0xa0000001"]) == 1
    error = one_error(capsys)
    assert "ENOTCONN" in error
    assert "session not established" in error


def test_reload_of_a_bad_file_prints_all_problems(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """As a compiler does: a line for each, with file and line."""
    server.plane.bad_config = (Problem("c.yaml", 3, "policies", "missing"), Problem("c.yaml", 0, "", "odd"))
    assert main(["--socket", server.socket, "reload"]) == 1
    assert capsys.readouterr().err.splitlines() == ["c.yaml:3: policies: missing", "c.yaml: odd"]


@pytest.mark.parametrize(
    "argv", [[], ["nosuch"], ["sessions", "--limit", "0"], ["run"], ["sess"], ["status", "--js"]]
)
def test_wrong_usage_is_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse's own message; abbreviations are not guessed."""
    with pytest.raises(SystemExit) as error:
        main(argv)
    assert error.value.code == 2
    assert "usage: mptcp-pm" in capsys.readouterr().err


# Without a service


def test_check_prints_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """check uses the service's loader: all problems, exit status 1; --json has them as data."""
    file = tmp_path / "c.yaml"
    file.write_text("datapth: auto\npolicies: 3\n")
    assert main(["check", str(file)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{file}:") for line in lines)
    assert main(["check", "--json", str(file)]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], len(document["problems"])) == (False, 2)


def test_check_of_several_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All are checked; one that is bad makes the exit status."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("policies: []\n")
    bad.write_text("policies: 3\n")
    assert main(["check", str(bad), str(good)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"{bad}:1: policies: ")
    assert captured.out == f"{good}: valid, 0 policies\n"
    assert main(["check", "--json", str(bad), str(good)]) == 1
    document = json.loads(capsys.readouterr().out)
    found = [(file["file"], file["ok"]) for file in document["files"]]
    assert (document["ok"], found) == (False, [(str(bad), False), (str(good), True)])


@pytest.mark.parametrize(
    ("content", "redirect", "status", "words"),
    [
        ("policies: []", "printf %s '{}' | {} check -", 0, "/dev/stdin: valid, 0 policies"),
        ("policies: []", "printf %s '{}' | {} check /dev/stdin", 0, "/dev/stdin: valid, 0 policies"),
        ("policies: 3", "printf %s '{}' | {} check -", 1, "/dev/stdin:1: policies: must be a list"),
        ("policies: []", "{1} check <(printf %s '{0}')", 0, ": valid, 0 policies"),
        ("", "{1} check - <&-", 1, "/dev/stdin: cannot be read (Bad file descriptor)"),
    ],
)
def test_check_of_what_comes_through_a_pipe(
    content: str, redirect: str, status: int, words: str, environment: dict[str, str]
) -> None:
    """As a generator of configurations gives it."""
    script = redirect.format(content, " ".join(MPTCP_PM))
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == status, done
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_check_of_a_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 0."""
    file = tmp_path / "c.yaml"
    file.write_text("policies:\n  - {name: a, cgroup: /, path_manager: none}\n")
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: valid, 1 policy\n"


@pytest.mark.parametrize(("ok", "required", "status"), [(True, True, 0), (False, False, 0), (False, True, 3)])
def test_doctor_fails_where_the_service_would(
    ok: bool, required: bool, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 3 only if a required capability is missing; the remedy is printed."""
    monkeypatch.setattr(
        "pm.cli.doctor.probe",
        lambda find_family, **options: [SystemCheck("mptcp", ok, required, "off", "sysctl -w x=1")],
    )
    assert main(["doctor"]) == status
    assert "sysctl -w x=1" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == status
    assert json.loads(capsys.readouterr().out)["checks"][0]["remedy"] == "sysctl -w x=1"


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON Schema of the configuration."""
    assert main(["schema"]) == 0
    assert "policies" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A script for the shell, with commands and choices."""
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert "subflow" in out
    assert "established" in out


def test_bash_accepts_the_completion() -> None:
    """The script is valid shell."""
    script = subprocess.run(
        [*MPTCP_PM, "completion", "bash"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    subprocess.run(["bash", "-n"], input=script, check=True)


def test_man_page_is_up_to_date() -> None:
    """docs/mptcp-pm.1 is what `make man` writes."""
    assert (ROOT / "docs" / "mptcp-pm.1").read_text() == man_page({})


def test_man_page_has_a_date() -> None:
    """The version's, or the one that a reproducible build gives; never that of today."""
    of_version, of_epoch = (
        man_page(environ).splitlines()[0].replace("\\", "")
        for environ in ({}, {"SOURCE_DATE_EPOCH": "1000000000"})
    )
    assert f'"1" "{VERSION_DATE}"' in of_version
    assert '"1" "2001-09-09"' in of_epoch


def test_socket_comes_from_the_environment() -> None:
    """MPTCP_PM_SOCKET is the default of --socket, wherever the option stands."""
    parser = build_parser({"MPTCP_PM_SOCKET": "/from/environment"})
    assert parser.parse_args(["status"]).socket == "/from/environment"
    assert parser.parse_args(["--socket", "/a", "status"]).socket == "/a"
    assert parser.parse_args(["status", "--socket", "/b"]).socket == "/b"
    assert build_parser({}).parse_args(["status"]).socket == Api().unix


def test_only_what_a_command_needs_is_imported(environment: dict[str, str]) -> None:
    """`status --json` loads neither rich nor aiohttp, pydantic, structlog or pyroute2: it must start fast."""
    code = (
        "import sys; from pm.cli.main import main; main(['status', '--json']); "
        "slow = {'rich', 'aiohttp', 'pydantic', 'structlog', 'pyroute2', 'asyncio'}; "
        "print(slow & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == "set()\n"


# Endless commands and their ends


def on_a_terminal(*args: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """A command that Ctrl-C reaches, also where this test runs in the background of a shell."""
    return subprocess.Popen(
        [*MPTCP_PM, *args],
        env=environment,
        stdout=-1,
        stderr=-1,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, ""), out


def test_events_follow_until_interrupted(server: Server, environment: dict[str, str]) -> None:
    """A line per event; Ctrl-C ends it with status 0."""
    process = on_a_terminal("events", "--json", environment=environment)
    assert process.stdout
    while not server.plane.events.readers:
        assert process.poll() is None
    server.publish()
    assert json.loads(process.stdout.readline())["token"] == "0xa0000001"
    interrupt(process)


def test_events_end_with_the_service(tmp_path: Path) -> None:
    """The end of the stream is one line, exit status 1."""
    server = Server(tmp_path)
    server.start()
    process = subprocess.Popen(
        [*MPTCP_PM, "--socket", server.socket, "events"], cwd=ROOT, stdout=-1, stderr=-1, text=True
    )
    while not server.plane.events.readers:
        assert process.poll() is None
    server.stop()
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err.count("\n")) == (1, 1)


def test_watch_shows_sessions_until_interrupted(environment: dict[str, str]) -> None:
    """--watch refreshes; Ctrl-C ends it with status 0."""
    process = on_a_terminal("sessions", "--watch", "--json", environment=environment)
    assert process.stdout
    for _ in range(2):
        assert len(json.loads(process.stdout.readline())["sessions"]) == 2
    interrupt(process)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("top --json", 130),
        ("top --once", 130),
        ("top", 0),
        ("status", 130),
        ("sessions --watch", 0),
        ("events", 0),
    ],
)
def test_a_document_that_was_interrupted_is_no_success(
    monkeypatch: pytest.MonkeyPatch, command: str, status: int
) -> None:
    """What goes on until Ctrl-C ends well by it; what prints once has not printed all."""

    def interrupt(options: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(HANDLERS, command.split()[0], interrupt)
    assert main(command.split()) == status
    assert status in EXIT_STATUS


@pytest.mark.parametrize(
    "command",
    ["sessions --json", "sessions --limit 1000", "sessions --watch", "top --view sessions --limit 500"],
)
def test_closed_pipe_is_no_error(server: Server, environment: dict[str, str], command: str) -> None:
    """`mptcp-pm sessions | head -1` prints one line and nothing on standard error."""
    for number in range(3, 1000):
        server.plane.add(number)
    pipe = f"{sys.executable} -m pm.cli.main {command} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")


@pytest.mark.parametrize("command", ["sessions", "sessions --json", "schema", "status", "sessions --watch"])
def test_a_full_disk_is_one_line(command: str, environment: dict[str, str]) -> None:
    """For output that is buffered as well."""
    script = f"{' '.join(MPTCP_PM)} {command} > /dev/full"
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr == "mptcp-pm: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("command", ["--help", "--version", "why --help"])
def test_help_goes_where_other_output_goes(command: str, environment: dict[str, str]) -> None:
    """Into a pipe that is closed without a word, and into a full disk with a line."""
    words = f"{' '.join(MPTCP_PM)} {command}"
    for script, status, error in (
        (f"{words} > >(exec true) 2>&3; echo $?", 0, ""),
        (f"{words} > /dev/full 2>&3; echo $?", 1, "mptcp-pm: the output cannot be written"),
    ):
        done = subprocess.run(
            ["bash", "-c", f"exec 3>&2; {script}"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert int(done.stdout) == status
        assert done.stderr.startswith(error)
        assert len(done.stderr.splitlines()) == bool(error)


def test_an_archive_for_a_closed_output(environment: dict[str, str]) -> None:
    """One line."""
    script = f"{' '.join(MPTCP_PM)} report --output - >&-"
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        1,
        "mptcp-pm: standard output is closed: name a file with --output\n",
    )


class Foreign(BaseHTTPRequestHandler):
    """Answers 200 and JSON whatever it is asked."""

    answer = b""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    do_POST = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    "answer", ["{}", "[]", "null", "3", '{"sessions": [{}], "next": null}', '{"status": 1}']
)
def test_another_server_is_told(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its JSON is."""
    monkeypatch.setattr(Foreign, "answer", answer.encode())
    (tmp_path / "c.yaml").write_text("policies: []\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as foreign:
        threading.Thread(target=foreign.serve_forever).start()
        url = f"http://127.0.0.1:{foreign.server_address[1]}"
        try:
            for command in (
                "status",
                "why 0x12345678",
                "why 10.0.0.1",
                "sessions --limit 1",
                "explain --cgroup / --to 10.0.0.1",
                f"reload --dry-run {tmp_path}/c.yaml",
                "policies",
                "top",
                "addresses",
                "session 0x12345678",
                "reload",
            ):
                assert main(["--url", url, *command.split()]) == 1, command
                assert one_error(capsys) == f"mptcp-pm: the server at {url} is not mptcp-pm: correct --url\n"
        finally:
            foreign.shutdown()


def test_a_token_that_is_a_path_is_no_part_of_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be the name of a file in the archive."""
    session = {"token": "../../etc/x", "failed": [], "unroutable": []}
    answer = {"sessions": [session], "next": None}
    monkeypatch.setattr(Foreign, "answer", json.dumps(answer).encode())
    with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as foreign:
        threading.Thread(target=foreign.serve_forever).start()
        made, client = Report(), Client(Target("", f"http://127.0.0.1:{foreign.server_address[1]}"))
        try:
            _add_service(made, client)
        finally:
            client.close()
            foreign.shutdown()
    assert "is not mptcp-pm" in made.left_out["sessions.json"]
    assert made.parts.keys() == {"policies.json", "addresses.json", "metrics.txt"}


def test_no_name_gets_control_of_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In errors too."""
    for argv in (["check", str(tmp_path / "\x1b[31m")], ["check", "--here", "\x1b]0;x\x07"], ["why", "\x1b"]):
        assert main(["--socket", str(tmp_path / "\x1b[7m"), *argv]) == 1
        error = one_error(capsys)
        assert "\\x1b" in error
        assert error[:-1].isprintable()


def test_watch_goes_on_into_a_pipe(server: Server, environment: dict[str, str]) -> None:
    """Again and again, and says when the service is gone."""
    process = on_a_terminal("sessions", "--watch", environment=environment)
    assert process.stdout
    assert process.stderr
    for line in process.stdout:
        if "0xa0000002" in line:
            break
    assert any("0xa0000002" in line for line in process.stdout)
    server.stop()
    assert any("the service is not running" in line for line in process.stderr)
    process.terminate()
    process.communicate(timeout=10)


STOPPED_EARLY = """
import os, signal, sys, types
from pm.cli.main import main
assert "argparse" not in sys.modules and "asyncio" not in sys.modules
commands = types.ModuleType("pm.cli.commands")
commands.perform = lambda argv: os.kill(os.getpid(), signal.SIGTERM)
sys.modules["pm.cli.commands"] = commands
main([sys.argv[1]])
"""


@pytest.mark.parametrize(("command", "status"), [("run", 0), ("events", -signal.SIGTERM)])
def test_sigterm_before_everything_is_imported(command: str, status: int) -> None:
    """`run` ends well: PID 1 would ignore the signal otherwise, and the engine would wait and kill."""
    assert subprocess.run([sys.executable, "-c", STOPPED_EARLY, command], cwd=ROOT).returncode == status
