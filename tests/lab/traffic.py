# SPDX-License-Identifier: Apache-2.0
"""The traffic tool as a test drives it, and a comparison of what its two ends carried."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from typing import Any

from tests.lab.waiting import PATIENCE


class Traffic:
    """A running traffic_tool.py that a test drives by commands."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        # A thread reads, so that a deadline on an answer needs no select() beside buffered text.
        threading.Thread(target=self._read, daemon=True).start()
        self._answer(10.0)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put("")

    def _answer(self, deadline_s: float) -> dict[str, Any]:
        deadline_s *= PATIENCE
        try:
            line = self.answers.get(timeout=deadline_s)
        except queue.Empty:
            raise AssertionError(f"traffic: no answer in {deadline_s} s") from None
        if not line:
            raise AssertionError(f"traffic ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise AssertionError(f"traffic: {answer['error']}")
        return answer

    def begin(self, do: str, **parameters: Any) -> None:
        """Send a command and do not wait; ``finish()`` takes its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **parameters}) + "\n")
        self.process.stdin.flush()

    def finish(self, deadline_s: float = 60.0) -> dict[str, Any]:
        return self._answer(deadline_s)

    def do(self, do: str, deadline_s: float = 60.0, **parameters: Any) -> dict[str, Any]:
        self.begin(do, **parameters)
        return self.finish(deadline_s)

    def open(self, count: int = 1, rate: float = 0, deadline_s: float = 60.0) -> list[str]:
        """Open connections (``rate`` per second, 0: all at once), each with its first exchange done."""
        opened: list[str] = self.do("open", deadline_s, count=count, rate=rate)["opened"]
        return opened

    def send(self, deadline_s: float = 60.0, **what: Any) -> dict[str, Any]:
        """``bytes=`` or ``seconds=``, ``rate=``: on every connection, and wait until all came back."""
        return self.do("send", deadline_s, **what)

    def close(self, count: int | None = None) -> None:
        self.do("close", count=count)

    def report(self) -> list[dict[str, Any]]:
        """One entry per connection; the fields are those of traffic_tool.py's ``Connection.report()``."""
        connections: list[dict[str, Any]] = self.do("report")["connections"]
        return connections


def assert_same_bytes(client: Traffic, server: Traffic) -> int:
    """What one end sent is what the other received, in both directions; the bytes the client sent."""
    theirs = {c["remote"]: c for c in server.report()}
    ours = client.report()
    assert ours, "no connection to compare"
    for end in ours:
        peer = theirs[end["local"]]
        assert (end["sent"], end["sent_sha256"]) == (peer["received"], peer["received_sha256"]), (end, peer)
        assert (end["received"], end["received_sha256"]) == (peer["sent"], peer["sent_sha256"]), (end, peer)
    return sum(c["sent"] for c in ours)
