# SPDX-License-Identifier: Apache-2.0
"""``sessions --watch`` on a terminal: what it shows, and that the terminal is as before, however it ends."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.pseudo_terminal import MODES, PseudoTerminal
from tests.lab.scenarios import config, policy
from tests.lab.service import Service, command
from tests.lab.waiting import wait_equal, wait_for


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """With a session of two subflows."""
    with Lab() as lab:
        service = lab.service(config(policy(lab, "c", "fullmesh")))
        lab.server()
        lab.client(cgroup="c").open()
        wait_equal(lambda: [len(session["subflows"]) for session in service.sessions()], [2])
        yield service


def watch(service: Service, columns: int = 80, environment: dict[str, str] | None = None) -> PseudoTerminal:
    words = [*command(), "--socket", str(service.socket_path), "sessions", "--watch"]
    return PseudoTerminal(words, columns, 24, environment)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda terminal: terminal.send("\x03"), 0),
        (lambda terminal: terminal.send("q"), 0),
        (lambda terminal: terminal.process.send_signal(signal.SIGTERM), -signal.SIGTERM),
        (lambda terminal: terminal.process.send_signal(signal.SIGHUP), -signal.SIGHUP),
    ],
)
def test_the_terminal_is_as_before(
    service: Service, end: Callable[[PseudoTerminal], None], status: int
) -> None:
    """With its settings, its cursor and its first screen."""
    with watch(service) as terminal:
        terminal.expect(service.sessions()[0]["token"])
        assert terminal.settings() != terminal.modes_before
        assert terminal.modes() != MODES
        end(terminal)
        assert terminal.end() == status
        assert terminal.settings() == terminal.modes_before
        wait_equal(terminal.modes, MODES)


def test_ctrl_z_gives_the_terminal_back(service: Service) -> None:
    """As a shell leaves it, and `fg` goes on."""
    token = service.sessions()[0]["token"]
    shell = ["bash", "--norc", "--noprofile", "-i"]
    with PseudoTerminal(shell, environment={"PS1": "$ "}) as terminal:
        terminal.expect("$")
        watched = " ".join([*command(), "--socket", str(service.socket_path), "sessions", "--watch"])
        terminal.send(f"stty -g | tr : -; {watched}\n")
        terminal.expect(token)
        for _ in range(2):
            terminal.send("\x1a")
            wait_equal(terminal.modes, MODES)
            terminal.expect("Stopped")
            terminal.send("stty -g | tr : -; clear; fg\n")
            terminal.expect(token)
            wait_for(terminal.modes, "its own screen", until=lambda modes: modes["1049"])
        terminal.send("\x03")
        wait_equal(terminal.modes, MODES)
        terminal.send("echo status $?\n")
        terminal.expect("status 0")
        settings = set(re.findall(rb"[\r\n]((?:[0-9a-f]+-){10,}[0-9a-f]+)", terminal.written))
        assert len(settings) == 1


def test_a_resized_screen(service: Service) -> None:
    """One line per subflow where there is room, two where there is not; nothing twice."""
    token = service.sessions()[0]["token"]
    with watch(service, 120) as terminal:
        terminal.expect(token, "fullmesh: ")
        terminal.resize(70, 24)
        text = terminal.expect(token, "initial subflow (application)\n", "  fullmesh\n")
        assert text.count("10.77.1.1:") == text.count("10.77.2.1:") == 1
        terminal.resize(40, 10)
        terminal.expect(token)
        terminal.resize(120, 24)
        terminal.expect(token, "fullmesh: ")


def test_a_service_that_restarts(service: Service) -> None:
    """That it is gone is said; its sessions appear again."""
    token = service.sessions()[0]["token"]
    with watch(service) as terminal:
        terminal.expect(token)
        service.terminate()
        terminal.expect("trying again: the service is not running")
        service.start()
        terminal.expect(token)
        terminal.send("\x03")
        assert terminal.end() == 0
        assert terminal.settings() == terminal.modes_before


def test_a_service_that_does_not_answer(service: Service) -> None:
    """It is said that what is shown is old; and `q` ends it."""
    token = service.sessions()[0]["token"]
    with watch(service) as terminal:
        terminal.expect(token)
        service.process.send_signal(signal.SIGSTOP)
        try:
            terminal.expect("the service has not answered for", token)
            terminal.send("q")
            assert terminal.end() == 0
        finally:
            service.process.send_signal(signal.SIGCONT)


def test_more_sessions_than_lines(service: Service) -> None:
    """The last line says so, and how to see the others; where all fit there is none."""
    with watch(service) as terminal:
        terminal.expect(service.sessions()[0]["token"])
        assert "more" not in terminal.text
        terminal.resize(80, 4)
        text = terminal.expect("more than fit on this screen: `mptcp-pm top` has them all")
        assert text.splitlines()[-1].startswith("more than fit")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"LC_ALL": "C"}])
def test_what_a_terminal_has_not(service: Service, environment: dict[str, str]) -> None:
    """No colours, or no characters beyond ASCII."""
    token = service.sessions()[0]["token"]
    with watch(service, environment=environment) as terminal:
        terminal.expect(token)
        terminal.send("\x03")
        assert terminal.end() == 0
        if "NO_COLOR" in environment:
            assert not re.search(rb"\x1b\[[\d;]*3[0-9]m", terminal.written)
        else:
            assert terminal.written.isascii()


def test_a_dumb_terminal_gets_lines(service: Service) -> None:
    """One list after the other, and no escape sequence."""
    token = service.sessions()[0]["token"]
    with watch(service, environment={"TERM": "dumb"}) as terminal:
        wait_for(lambda: terminal.written.count(token.encode()), "it again", until=lambda count: count > 1)
        terminal.send("\x03")
        assert terminal.end() == 0
        assert b"\x1b" not in terminal.written
