# SPDX-License-Identifier: Apache-2.0
"""``top`` on a terminal, beside a real service with traffic: what it shows, and every key."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.pseudo_terminal import MODES, PseudoTerminal
from tests.lab.scenarios import config, policy
from tests.lab.service import Service, command
from tests.lab.waiting import wait_equal, wait_for

RATE = r"[\d.]+ [KM]iB/s"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One for all tests: none changes what another sees."""
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def service(lab: Lab) -> Service:
    """With two sessions of two subflows of the policy c, over which bytes go all the time, and one of d."""
    service = lab.service(config(policy(lab, "c", "fullmesh"), policy(lab, "d", "none")))
    lab.server()
    busy, idle = lab.client(cgroup="c"), lab.client(cgroup="d")
    busy.open(2)
    idle.open()
    wait_equal(lambda: sorted(len(session["subflows"]) for session in service.sessions()), [1, 2, 2])
    busy.begin("send", seconds=3600, rate=1_500_000)
    return service


def words(service: Service, *options: str) -> list[str]:
    return [*command(), "--socket", str(service.socket_path), "top", *options]


def top(
    service: Service,
    *options: str,
    columns: int = 80,
    lines: int = 24,
    environment: dict[str, str] | None = None,
) -> PseudoTerminal:
    return PseudoTerminal(words(service, *options), columns, lines, environment)


def expect(terminal: PseudoTerminal, pattern: str) -> str:
    """Wait until a line of the screen has this; the line."""

    def found() -> str:
        return next((line for line in terminal.lines if re.search(pattern, line)), "")

    return wait_for(found, f"a line with {pattern}", deadline_s=20.0)


def quit_it(terminal: PseudoTerminal) -> None:
    terminal.send("q")
    assert terminal.end() == 0
    assert terminal.settings() == terminal.modes_before
    wait_equal(terminal.modes, MODES)


def of_policy(service: Service, name: str) -> list[str]:
    return [session["token"] for session in service.sessions(policy=name)]


def test_views(service: Service) -> None:
    """What carries how much: interfaces, policies, sessions, and each session's subflows."""
    with top(service) as terminal:
        line = expect(terminal, rf"^eth[01] +up +{RATE} +{RATE} +\d+% █")
        assert re.search("[▁▂▃▄▅▆▇█]{2}", line)
        assert "loopback" in expect(terminal, "^lo ")
        terminal.send("2")
        assert re.search(r"eth[01] \d+%", expect(terminal, rf"^c +2 +{RATE} +{RATE}"))
        expect(terminal, "^d +1 ")
        terminal.send("\t")
        token = expect(terminal, rf"^0x[0-9a-f]+ +c +2 +{RATE}").split()[0]
        assert token in of_policy(service, "c")
        terminal.send("\r")
        terminal.expect("SUBFLOWS", "10.77.1.1:", "10.77.2.1:", "established", "HISTORY, newest first")
        expect(terminal, rf"^  eth[01] +{RATE} +{RATE} +\d+%")
        terminal.send("\x1b")
        terminal.expect("PATHS")
        quit_it(terminal)


def test_sorting_and_filters(service: Service) -> None:
    """The service sorts sessions, and looks for the text: the session of d has the least bytes."""
    (idle,) = of_policy(service, "d")
    with top(service, "--view", "sessions", "--sort", "bytes") as terminal:
        wait_for(lambda: terminal.lines[4:9], "it last", until=lambda lines: idle in "".join(lines[2:]))
        terminal.send("r")
        terminal.expect("by bytes, reversed")
        wait_for(lambda: terminal.lines[4], "it first", until=lambda line: line.startswith(idle))
        terminal.send("/10.77.2.1\r")
        terminal.expect("filter '10.77.2.1'")
        wait_for(lambda: terminal.text, "it is gone", until=lambda text: idle not in text and "0x" in text)
        terminal.send("/\x15nosuch\r")
        terminal.expect("no sessions with 'nosuch'")
        terminal.send("\x1b")
        terminal.expect(idle)
        quit_it(terminal)


def test_a_policy_leads_to_its_sessions(service: Service) -> None:
    (idle,) = of_policy(service, "d")
    with top(service, "--view", "policies", "--sort", "name") as terminal:
        expect(terminal, "^d +1 ")
        terminal.send("\x1b[B\r")
        terminal.expect("policy d", idle)
        assert not [token for token in of_policy(service, "c") if token in terminal.text]
        quit_it(terminal)


def test_help_and_pause(service: Service) -> None:
    """A pause holds the screen; whoever asks for something else sees it."""
    with top(service) as terminal:
        expect(terminal, "^eth0 ")
        terminal.send("h")
        terminal.expect("Any key goes back.")
        terminal.send("x")
        expect(terminal, "^eth0 ")
        terminal.send("p")
        terminal.expect("paused")
        terminal.send("3")
        wait_for(lambda: terminal.text, "no pause", until=lambda text: "0x" in text and "paused" not in text)
        quit_it(terminal)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda terminal: terminal.send("\x03"), 0),
        (lambda terminal: terminal.process.send_signal(signal.SIGTERM), -signal.SIGTERM),
        (lambda terminal: terminal.process.send_signal(signal.SIGHUP), -signal.SIGHUP),
    ],
)
def test_the_terminal_is_as_before(
    service: Service, end: Callable[[PseudoTerminal], None], status: int
) -> None:
    """Its settings, its cursor and its first screen."""
    with top(service) as terminal:
        expect(terminal, "^eth0 ")
        assert terminal.settings() != terminal.modes_before
        end(terminal)
        assert terminal.end() == status
        assert terminal.settings() == terminal.modes_before
        wait_equal(terminal.modes, MODES)


def test_a_failure_gives_the_terminal_back(service: Service) -> None:
    """What nobody expected is told after that, on the first screen."""
    script = (
        "import sys; from pm.cli.top import collector; from pm.cli.main import main\n"
        "once = collector.Collector.collect; calls = []\n"
        "def fail(self, request):\n"
        "    calls.append(1)\n"
        "    return once(self, request) if len(calls) < 3 else [][0]\n"
        "collector.Collector.collect = fail\n"
        "sys.exit(main())\n"
    )
    python = [command()[0].replace("mptcp-pm", "python")] if len(command()) == 1 else command()[:1]
    argv = [*python, "-c", script, *words(service)[len(command()) :]]
    with PseudoTerminal(argv) as terminal:
        assert terminal.end(20) == 1
        assert terminal.settings() == terminal.modes_before
        wait_equal(terminal.modes, MODES)
        assert terminal.written.index(b"\x1b[?1049l") < terminal.written.index(b"IndexError")


def test_sizes(service: Service) -> None:
    """Columns leave a narrow screen and come back; no line is broken or left over."""
    with top(service, columns=200, lines=50) as terminal:
        expect(terminal, "^INTERFACE .* ADDRESSES$")
        terminal.resize(80, 24)
        expect(terminal, "^INTERFACE .* HISTORY$")
        terminal.resize(40, 12)
        expect(terminal, "^INTERFACE +SENT +RECEIVED +SHARE$")
        assert len([line for line in terminal.lines if line.startswith("eth0")]) == 1
        terminal.resize(10, 3)
        wait_for(lambda: terminal.text, "a little", until=lambda text: "INTERFACE" in text)
        terminal.resize(100, 30)
        expect(terminal, "^INTERFACE .* HISTORY .*SUBFLOWS")
        quit_it(terminal)


def test_a_service_that_restarts(service: Service) -> None:
    """That it is gone is said, keys work, and it is found again."""
    with top(service) as terminal:
        expect(terminal, rf"^eth[01] +up +{RATE}")
        service.terminate()
        terminal.expect("trying again: the service is not running")
        terminal.send("h")
        terminal.expect("Any key goes back.")
        terminal.send("x")
        service.start()
        wait_for(
            lambda: terminal.text,
            "its rates",
            until=lambda text: "trying again" not in text and re.search(rf"\neth[01] +up +{RATE}", text),
            deadline_s=20.0,
        )
        quit_it(terminal)


def test_a_service_that_does_not_answer(service: Service) -> None:
    """Holds up no key."""
    with top(service) as terminal:
        expect(terminal, "^eth0 ")
        service.process.send_signal(signal.SIGSTOP)
        try:
            terminal.expect("the service has not answered for")
            terminal.send("h")
            terminal.expect("Any key goes back.")
            terminal.send("x")
            quit_it(terminal)
        finally:
            service.process.send_signal(signal.SIGCONT)


def test_a_session_that_ends(service: Service, lab: Lab) -> None:
    """While it is shown."""
    client = lab.client(cgroup="e")
    client.open()
    (session,) = wait_for(lambda: service.sessions(cgroup=lab.cgroup_path("e")), "its session")
    token = session["token"]
    with top(service, "--view", "sessions", "--filter", token) as terminal:
        expect(terminal, f"^{token}")
        terminal.send("\r")
        terminal.expect("HISTORY, newest first")
        client.close()
        terminal.expect(f"{token}: ")
        quit_it(terminal)


@pytest.mark.parametrize("options", [(), ("--once",)])
def test_a_pipe_gets_one_snapshot(service: Service, options: tuple[str, ...]) -> None:
    """All views, with rates; no padding, no bar, no escape sequence."""
    done = subprocess.run(words(service, *options), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line != line.rstrip()] == []
    assert not re.search("[\x1b█▁]", done.stdout)
    for pattern in (rf"^eth[01] +up +{RATE}", r"^lo .*loopback", r"^c +2 ", rf"^0x[0-9a-f]{{8}} +c .*{RATE}"):
        assert re.search(pattern, done.stdout, re.MULTILINE), pattern


def test_json(service: Service) -> None:
    """What REST has, with rates; a view alone if it is asked for."""

    def shown(*options: str) -> dict[str, Any]:
        done = subprocess.run(words(service, "--json", *options), capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    found = shown()
    assert found.keys() == {"interfaces", "policies", "sessions"}
    assert {i["name"] for i in found["interfaces"]} >= {"eth0", "eth1", "lo"}
    assert {p["name"]: p["sent_per_second"] > 1000 for p in found["policies"]} == {"c": True, "d": False}
    assert len(found["sessions"]) >= 3
    sessions = shown("--view", "sessions", "--filter", "10.77.2.1", "--limit", "1")["sessions"]
    assert [session["policy"] for session in sessions] == ["c"]


@pytest.mark.parametrize(
    "environment", [{"NO_COLOR": "1"}, {"LC_ALL": "C"}, {"TERM": "linux"}, {"TERM": "dumb"}]
)
def test_what_a_terminal_has_not(service: Service, environment: dict[str, str]) -> None:
    """No colours, no characters beyond ASCII, or nothing but lines: then one snapshot."""
    with top(service, environment=environment) as terminal:
        if environment.get("TERM") == "dumb":
            assert terminal.end(30) == 0
            wait_for(lambda: terminal.written, "all views", until=lambda written: b"SESSIONS" in written)
            assert b"\x1b" not in terminal.written
            return
        expect(terminal, rf"^eth[01] +up +{RATE} +{RATE} +\d+% [█#]")
        quit_it(terminal)
        coloured = re.search(rb"\x1b\[[\d;]*3[0-9]m", terminal.written)
        assert bool(coloured) == ("NO_COLOR" not in environment)
        assert terminal.written.isascii() == ("NO_COLOR" not in environment)


def test_hostile_cgroups(service: Service, lab: Lab) -> None:
    """Their names command the terminal nothing, and turn nothing round."""
    client = lab.client(cgroup="e\x1b]0;owned\x07\u202e\x1b[2J")
    client.open()
    with top(service, "--view", "sessions", "--filter", "owned", columns=200) as terminal:
        expect(terminal, r"e\\x1b\]0;owned\\x07\\u202e\\x1b\[2J$")
        terminal.send("\r")
        terminal.expect("\\x1b]0;owned\\x07\\u202e\\x1b[2J")
        quit_it(terminal)
        client.close()
        assert b"\x1b]" not in terminal.written
        assert "\u202e".encode() not in terminal.written


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--view", "policies", "--sort", "rtt"), "policies have no order by rtt: --sort is one of "),
        (("--socket", "/nonexistent"), "the service is not running"),
    ],
)
def test_mistakes_are_one_line(service: Service, options: tuple[str, ...], error: str) -> None:
    with top(service, *options) as terminal:
        assert terminal.end() == 1
        wait_for(lambda: terminal.text, error, until=lambda text: error in text)
        assert b"\x1b[?1049h" not in terminal.written


def test_no_terminal_to_type_on(service: Service) -> None:
    """Standard input from elsewhere: it shows, and a signal ends it."""
    script = " ".join([*words(service), "< /dev/null"])
    with PseudoTerminal(["sh", "-c", f"exec {script}"]) as terminal:
        expect(terminal, "^eth0 ")
        terminal.send("\x03")
        assert terminal.end() == 0
        wait_equal(terminal.modes, MODES)
