# SPDX-License-Identifier: Apache-2.0
"""Containers as a test sees them: ``docker`` commands, and a project of ``docker compose``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.lab import evidence
from tests.lab.capture import Segment, parse_segment
from tests.lab.netns import NAME
from tests.lab.oracle import Flow, parse_subflows
from tests.lab.traffic import Traffic

ROOT = Path(__file__).resolve().parents[2]
# The image that is tested; without: the one that `make image` makes.
IMAGE = os.environ.get("MPTCP_PM_TEST_IMAGE") or "mptcp-pm:slim"
TRAFFIC_IMAGE = "mptcp-pm-test-traffic"
SIDECAR = "mptcp-pm"
TOOL = ("python3", "/traffic_tool.py")
DEADLINE_S = 120.0
# Prints the IP packets of all interfaces, from their header on.
CAPTURE = """
import socket
capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
print("ready", flush=True)
while True:
    packet, address = capture.recvfrom(1 << 17)
    if address[1] in (0x0800, 0x86DD):
        print(packet.hex(), flush=True)
"""


def docker(*command: str, deadline_s: float = DEADLINE_S) -> str:
    """What ``docker COMMAND`` prints; AssertionError with its errors where it fails."""
    status, text = docker_status(*command, deadline_s=deadline_s)
    assert status == 0, f"docker {' '.join(command)}: status {status}\n{text}"
    return text


def docker_status(*command: str, deadline_s: float = DEADLINE_S) -> tuple[int, str]:
    """Exit status of ``docker COMMAND``, and what it prints, errors included."""
    done = subprocess.run(
        ["docker", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=deadline_s,
        check=False,
        env={**os.environ, "MPTCP_PM_IMAGE": IMAGE},
    )
    return done.returncode, done.stdout


def make_image() -> None:
    """``make image``, unless another image is tested; the engine's cache makes it quick."""
    if not os.environ.get("MPTCP_PM_TEST_IMAGE"):
        subprocess.run(["make", "--no-print-directory", "image"], cwd=ROOT, check=True)


def kill(pid: int) -> None:
    """SIGKILL to a process that ``docker inspect`` names.

    ``docker kill`` would count as a stop by hand, after which no restart policy applies.
    """
    code = f"import os; os.kill({pid}, 9)"
    docker("run", "--rm", "--pid", "host", "--cap-add", "KILL", TRAFFIC_IMAGE, "python3", "-c", code)


CONFIG = "/etc/mptcp-pm/mptcp-pm.yaml"
RUN = ("run", "--config", CONFIG)
NET_ADMIN = ("--cap-add", "NET_ADMIN")
BPF = (*NET_ADMIN, "--cap-add", "BPF")
STATE = ("--read-only", "--tmpfs", "/run/mptcp-pm")
SHIPPED = ("--volume", f"{ROOT}/docker/sidecar:/etc/mptcp-pm:ro")


def run_sidecar(
    network: str,
    *options: str,
    command: Sequence[str] = RUN,
    deadline_s: float = 20.0,
) -> tuple[int, str]:
    """Exit status and output of a sidecar that ends by itself, in the network namespace of a container."""
    name = f"{NAME}-alone"
    try:
        return docker_status(
            "run", "--name", name, "--network", f"container:{network}", "--cap-drop", "ALL",
            *(options or (*NET_ADMIN, *STATE, *SHIPPED)), IMAGE, *command, deadline_s=deadline_s,
        )  # fmt: skip
    finally:
        docker("rm", "--force", "--volumes", name)


class Project:
    """The services of compose files, from ``up()`` to the end of the ``with`` block of ``project()``."""

    def __init__(self, name: str, files: list[Path]) -> None:
        self.name = name
        self.files = files
        self._processes: list[subprocess.Popen[str]] = []

    def compose(self, *command: str) -> str:
        return docker(*self._compose(), *command)

    def up(self, *arguments: str) -> None:
        """``docker compose up``, until all services are healthy or running."""
        self.compose("up", "--detach", "--wait", "--quiet-pull", *arguments)

    def container(self, service: str) -> str:
        """The id of a service's container, running or not."""
        ids = self.compose("ps", "--all", "--quiet", service).split()
        assert len(ids) == 1, f"{service}: {ids}"
        return ids[0]

    def state(self, service: str) -> dict[str, Any]:
        """``docker inspect``: State and RestartCount of a service's container."""
        found = json.loads(docker("inspect", self.container(service)))[0]
        return {**found["State"], "RestartCount": found["RestartCount"]}

    def run(self, service: str, *command: str) -> str:
        return self.compose("exec", "-T", service, *command)

    def ask(self, *command: str, service: str = SIDECAR) -> Any:
        """What the command ``mptcp-pm`` of a sidecar answers with ``--json``."""
        return json.loads(self.run(service, "mptcp-pm", *command, "--json"))

    def sessions(self) -> list[dict[str, Any]]:
        sessions: list[dict[str, Any]] = self.ask("sessions")["sessions"]
        return sessions

    def ready(self, service: str = SIDECAR) -> bool:
        status, _ = docker_status(*self._compose(), "exec", "-T", service, "mptcp-pm", "status")
        return status == 0

    def log(self, service: str = SIDECAR) -> str:
        return docker("logs", self.container(service))

    def events(self, service: str = SIDECAR) -> list[dict[str, Any]]:
        """The records of a sidecar's log."""
        lines = self.log(service).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def subflows(self, service: str = "application") -> dict[int, list[Flow]]:
        """What ``ss`` shows in a service's network namespace, by token."""
        return parse_subflows(self.run(service, "ss", "-tnaiOH"))

    def acked(self, service: str = "application") -> dict[str, int]:
        """By local address: bytes that the peers have acknowledged on established subflows."""
        carried: dict[str, int] = {}
        for line in self.run(service, "ss", "-tniOH", "state", "established").splitlines():
            local = line.split()[2].rpartition(":")[0].partition("%")[0]
            if found := re.search(r"bytes_acked:(\d+)", line):
                carried[local] = carried.get(local, 0) + int(found[1])
        return carried

    def traffic(self, service: str, *arguments: str) -> Traffic:
        """The traffic tool within a service's container: ``traffic("application", "client", "server")``."""
        return self._traffic(*self._compose(), "exec", "-T", service, *TOOL, *arguments)

    def beside(self, service: str, *arguments: str) -> Traffic:
        """The traffic tool in a container of its own, in the network namespace of a service."""
        network = f"container:{self.container(service)}"
        return self._traffic(
            "run", "--rm", "--interactive", "--network", network, TRAFFIC_IMAGE, *TOOL, *arguments
        )

    @contextlib.contextmanager
    def capture(self, service: str) -> Iterator[Callable[[], list[Segment]]]:
        """What gives the TCP segments so far of all interfaces in a service's network namespace."""
        name = f"{self.name}-capture"
        options = ["--network", f"container:{self.container(service)}", "--cap-add", "NET_RAW", "--rm"]
        words = ["docker", "run", "--name", name, *options, TRAFFIC_IMAGE, "python3", "-c", CAPTURE]
        packets: list[str] = []
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            reader = threading.Thread(target=packets.extend, args=(process.stdout,), daemon=True)
            reader.start()
            try:
                yield lambda: [s for p in list(packets) if (s := parse_segment(bytes.fromhex(p)))]
            finally:
                docker("rm", "--force", name)

    def _traffic(self, *command: str) -> Traffic:
        process = subprocess.Popen(
            ["docker", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "MPTCP_PM_IMAGE": IMAGE},
        )
        self._processes.append(process)
        return Traffic(process)

    def end(self, traffic: Traffic) -> None:
        """Its connections end; the tool ends with its standard input."""
        assert traffic.process.stdin is not None
        traffic.process.stdin.close()
        traffic.process.wait(DEADLINE_S)
        self._processes.remove(traffic.process)

    def down(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self.compose("down", "--volumes", "--timeout", "5", "--remove-orphans")

    def look(self) -> list[evidence.Section]:
        """What a failed test shows."""
        _, containers = docker_status(*self._compose(), "ps", "--all")
        _, logs = docker_status(*self._compose(), "logs", "--no-color", "--tail", "40")
        return [(f"containers of {self.name}", containers), (f"logs of {self.name}", logs)]

    def _compose(self) -> list[str]:
        files = [word for file in self.files for word in ("--file", str(file))]
        return ["compose", *files, "--project-name", self.name]


@contextlib.contextmanager
def project(*files: str, name: str = "") -> Iterator[Project]:
    """A project of compose files (paths within the checkout); all of it is gone after the block."""
    made = Project(f"{NAME}{name}", [ROOT / file for file in files])
    evidence.begin(made.look)
    error: BaseException | None = None
    try:
        yield made
    except BaseException as raised:
        error = raised
        raise
    finally:
        evidence.end(made.look, error)
        made.down()
