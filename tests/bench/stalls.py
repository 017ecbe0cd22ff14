# SPDX-License-Identifier: Apache-2.0
"""How long the event loop is busy without a pause, at worst, while a peer and readers do what they can.

The sessions are real ones, and so is the kernel; the service is at the end that listens.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

from pm.errors import KernelRefused
from pm.linux.netlink.mptcp_pm import PathManagerSocket
from tests.bench.load import Reader
from tests.bench.rows import Row
from tests.bench.sessions import OPEN_RATE, load
from tests.lab.lab import Lab
from tests.lab.scenarios import blackhole, config, peer_path_manager, policy
from tests.lab.service import Service
from tests.lab.waiting import wait_equal

SESSIONS = int(os.environ.get("STALLS_SESSIONS", "10000"))
EACH_S = 10.0
LIMIT_MS = 100.0
PATHS = ("/v1/sessions?limit=1000", "/v1/sessions?policy=srv&limit=1000", "/metrics", "/v1/policies")


class Stall(NamedTuple):
    """The longest of a phase: on the clock, and of the processor time of the loop's thread."""

    passed_ms: float = 0.0
    used_ms: float = 0.0


class Peer:
    """The other end of the sessions."""

    def __init__(self, lab: Lab, kernel: PathManagerSocket) -> None:
        self.lab, self.kernel = lab, kernel
        self.tokens = list(lab.subflows("client"))
        self.join = kernel.prepare_subflow(
            lab.address("client", 1), 0, lab.address("server", 1), 5000, backup=False
        )

    def joins(self) -> None:
        """To one session."""
        self._again(lambda _: self.kernel.create_subflow(self.tokens[0], self.join))

    def joins_everywhere(self) -> None:
        self._again(lambda turn: self.kernel.create_subflow(self.of(turn), self.join))

    def announcements(self) -> None:
        """A hundred addresses that come and go, of one session."""

        def cycle_address(turn: int) -> None:
            number = 2 + turn % 200
            self.kernel.announce(self.tokens[1], f"10.77.9.{number}", number)
            self.kernel.withdraw(self.tokens[1], 2 + (turn + 100) % 200)

        self._again(cycle_address)

    def announcements_everywhere(self) -> None:
        self._again(lambda turn: self.kernel.announce(self.of(turn), f"10.77.9.{2 + turn % 200}", 9))

    def priorities(self) -> None:
        """MP_PRIO, of the first subflow of each session in turn."""
        flows = self.lab.subflows("client")
        first = [(token, found[0]) for token, found in flows.items() if found]

        def change(turn: int) -> None:
            token, f = first[turn % len(first)]
            backup = turn // len(first) % 2 == 0
            self.kernel.set_backup(token, f.local, f.local_port, f.remote, f.remote_port, backup=backup)

        self._again(change)

    def of(self, turn: int) -> int:
        return self.tokens[turn % len(self.tokens)]

    def _again(self, command: Callable[[int], object]) -> None:
        ends, turn = time.monotonic() + EACH_S, 0
        while time.monotonic() < ends:
            with suppress(KernelRefused):
                command(turn)
            turn += 1


class Bench:
    def __init__(self, lab: Lab, service: Service, stalls: Path) -> None:
        self.lab, self.service, self.stalls = lab, service, stalls
        self.found: dict[str, Stall] = {}

    def phase(self, what: str, act: Callable[[], object]) -> None:
        """What the loop did while ``act`` ran, and for a second after it."""
        began = time.monotonic()
        act()
        time.sleep(1)
        lines = [tuple(map(float, line.split())) for line in self.stalls.read_text().splitlines()]
        during = [(passed, used) for at, passed, used in lines if at > began]
        longest = [1e3 * max((line[i] for line in during), default=0.0) for i in (0, 1)]
        self.found[what] = Stall(*longest)
        assert self.service.ready()

    def read(self, act: Callable[[], object]) -> None:
        """Four readers without pause, and some that never read, while ``act`` runs."""
        socket = str(self.service.socket_path)
        with ExitStack() as stack:
            for path in PATHS:
                stack.enter_context(load(self.lab, "poll", socket, path))
            for path in islice(cycle(("/v1/events", PATHS[0])), 32):
                reader = Reader(socket)
                stack.callback(reader.sock.close)
                reader.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            act()


def bench(sessions: int = SESSIONS) -> tuple[list[Row], Any]:
    with Lab(client=1, server=1) as lab, peer_path_manager(lab, "client") as kernel:
        blackhole(lab, "to", "10.77.9.0/24")
        lab.server(cgroup="srv")
        stalls = lab.directory / "stalls"
        service = lab.service(
            config(policy(lab, "srv")),
            ns="server",
            program=[sys.executable, "-m", "tests.bench.ticking_service"],
            env={"STALLS_FILE": str(stalls)},
        )
        client = lab.client()
        bench = Bench(lab, service, stalls)

        def open_all() -> None:
            client.open(sessions, OPEN_RATE, deadline_s=300)
            wait_equal(lambda: service.get("/v1/status")["sessions"], sessions, deadline_s=60)

        bench.phase(f"{sessions} sessions come", open_all)
        peer = Peer(lab, kernel)
        acts: Sequence[tuple[str, Callable[[], None]]] = (
            ("joins to one session", peer.joins),
            ("joins to each session", peer.joins_everywhere),
            ("ADD_ADDR and RM_ADDR without end", peer.announcements),
            ("ADD_ADDR in each session", peer.announcements_everywhere),
            ("MP_PRIO in each session", peer.priorities),
        )
        bench.phase("nothing", lambda: time.sleep(EACH_S))
        for what, act in acts:
            bench.phase(what, act)
        bench.phase("readers", lambda: bench.read(lambda: time.sleep(EACH_S)))
        bench.phase("readers, and ADD_ADDR without end", lambda: bench.read(peer.announcements))
        bench.phase(f"{sessions // 2} sessions close", lambda: client.close(sessions // 2))
        wait_equal(lambda: service.get("/v1/status")["sessions"], sessions - sessions // 2, deadline_s=60)
    rows = [
        Row.value(f"loop busy, at worst, {what}", "ms", stall.used_ms, LIMIT_MS)
        for what, stall in bench.found.items()
    ]
    return rows, {what: stall._asdict() for what, stall in bench.found.items()}
