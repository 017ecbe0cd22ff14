# SPDX-License-Identifier: Apache-2.0
"""``mptcp-pm run`` as a test sees it: a process, its REST API on a Unix socket, its log."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from tests.lab.waiting import PATIENCE, wait_for

ROOT = Path(__file__).resolve().parents[2]
Config = dict[str, Any] | str
# netlink or bpf: what the tests are run on. Empty: what the service finds.
DATAPATH = os.environ.get("MPTCP_PM_TEST_DATAPATH", "")
# Services have the capabilities that the systemd unit leaves them, and no others.
LIKE_THE_UNIT = bool(os.environ.get("MPTCP_PM_TEST_LIKE_THE_UNIT"))


class ApiError(AssertionError):
    """An answer of 400 and above. ``problem`` is its problem+json document (RFC 9457)."""

    def __init__(self, status: int, problem: Any) -> None:
        super().__init__(f"{status}: {problem}")
        self.status = status
        self.problem = problem


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float = 30.0) -> None:
        super().__init__("localhost", timeout=timeout_s * PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def like_the_unit() -> list[str]:
    """A command that runs others with the capabilities that the unit leaves.

    On the patched kernel with CAP_PERFMON, as the unit says.
    """
    more = ["CAP_PERFMON"] if DATAPATH == "bpf" else []
    unit = (ROOT / "config/mptcp-pm.service").read_text()
    (listed,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    kept = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in (*listed.split(), *more))
    return [
        "setpriv",
        f"--bounding-set=-all{kept}",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--no-new-privs",
    ]


def command() -> list[str]:
    """The installed ``mptcp-pm`` beside this interpreter, or the package in this checkout."""
    installed = Path(sys.executable).with_name("mptcp-pm")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "pm.cli.main"]


class Service:
    """One running service; made by ``Lab.service()``, which also ends it."""

    def __init__(
        self,
        directory: Path,
        config: Config,
        prefix: list[str],
        popen: Callable[..., subprocess.Popen[bytes]],
        program: list[str],
        **popen_args: Any,
    ) -> None:
        self.config_path = directory / "config.yaml"
        self.log_path = directory / "log"
        self.socket_path = directory / "api.sock"
        self.prefix = prefix
        self.program = program
        self.popen = popen
        self.popen_args = popen_args
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Replace the configuration file atomically. Adds ``api`` and ``datapath`` where they are missing."""
        usual: dict[str, Any] = {"api": {"unix": str(self.socket_path)}}
        if DATAPATH:
            usual["datapath"] = DATAPATH
        if isinstance(config, str):
            missing = {key: value for key, value in usual.items() if f"\n{key}:" not in f"\n{config}"}
            text = f"{config}\n{yaml.safe_dump(missing)}" if missing else config
        else:
            text = yaml.safe_dump({**usual, **config}, sort_keys=False)
        new = self.config_path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.config_path)

    def start(self, *options: str, deadline_s: float = 20.0) -> Service:
        """Start the process and wait until it is ready; else AssertionError with its log.

        ``options`` are those of ``mptcp-pm run``.
        """
        with self.log_path.open("ab") as log:
            self.process = self.popen(
                [*self.prefix, *self.program, "run", "--config", str(self.config_path), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **self.popen_args,
            )
        try:
            wait_for(self.ready, "a service that is ready", deadline_s=deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        return self

    def ready(self) -> bool:
        """``GET /readyz`` answers 200."""
        if self.process.poll() is not None:
            raise AssertionError(f"mptcp-pm ended with {self.process.returncode}")
        try:
            return self.request("GET", "/readyz")[0] == 200
        except OSError:
            return False

    # REST

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """(status, document); the document is text where it is not JSON."""
        connection = UnixConnection(self.socket_path)
        try:
            payload = None if body is None else json.dumps(body)
            headers = {"Content-Type": "application/json"} if payload else {}
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            text = response.read().decode()
            is_json = "json" in response.headers.get("Content-Type", "")
            return response.status, json.loads(text) if is_json and text else text
        finally:
            connection.close()

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        status, document = self.request(method, path, body)
        if status >= 400:
            raise ApiError(status, document)
        return document

    def get(self, path: str) -> Any:
        """Document of a ``GET``; ApiError from status 400 on (so have the other verbs)."""
        return self._call("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        return self._call("POST", path, body)

    def patch(self, path: str, body: Any) -> Any:
        return self._call("PATCH", path, body)

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def sessions(self, **query: str | int) -> list[dict[str, Any]]:
        """All sessions that match ``query``, following the cursor through every page."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            text = urlencode({**query, **cursor})
            page = self.get(f"/v1/sessions?{text}")
            found += page["sessions"]
            if not page.get("next"):
                return found
            cursor = {"cursor": page["next"]}

    def reload(self) -> Any:
        return self.post("/v1/reload")

    def datapath(self) -> str:
        """``netlink`` or ``bpf``: what it runs on."""
        return str(self.get("/v1/status")["datapath"])

    # Process

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the service alone: nothing of it gets a chance to clean up."""
        self.process.kill()
        self.process.wait()

    def terminate(self, number: signal.Signals = signal.SIGTERM, deadline_s: float = 10.0) -> float:
        """SIGTERM; asserts exit status 0 and returns how many seconds the exit took."""
        start = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(deadline_s * PATIENCE)
        duration = time.monotonic() - start
        assert status == 0, f"mptcp-pm ended with {status}:\n{self.log()}"
        return duration

    def stop(self) -> None:
        """Tear-down: SIGTERM (so that it takes its programs off the cgroups), then SIGKILL to the group."""
        if getattr(self, "process", None) is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def rss_bytes(self) -> int:
        """Resident memory of the process (proc(5), VmRSS)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the process has ended")

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """Log records; lines that are not JSON (a traceback) appear as ``{"text": LINE}``."""
        records = []
        for line in self.log().splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                records.append({"text": line})
        return records
