# SPDX-License-Identifier: Apache-2.0
"""``make soak``: everything goes wrong at once, for an hour or ``SOAK_MINUTES``; nothing is wrong after it.

Meanwhile 100 connections per second come and go, the service is killed at random times, 210 times an hour,
and started again, its events overrun their socket, a link and an address flap, a peer announces and withdraws
addresses without end, and somebody makes and removes cgroups.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pm.errors import KernelRefused
from pm.linux.netlink.mptcp_pm import PathManagerSocket
from tests.lab.lab import Lab, leftovers
from tests.lab.nested import nested
from tests.lab.scenarios import blackhole, config, mesh, pairs_of, peer_path_manager, policy
from tests.lab.service import Service
from tests.lab.traffic import Traffic, assert_same_bytes
from tests.lab.waiting import wait_equal, wait_for

MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
KILLS_PER_HOUR = 210
POLICIES = (("kept",), ("churn*", "none"), ("churn-deep/**", "none"))
KEPT = 20  # sessions that live from the beginning to the end
RATE = 100  # connections per second that come and go
OVERRUN = 18_000  # connections whose events do not fit into the service's socket
RSS_GROWTH = 1.1


class Soak:
    def __init__(self, lab: Lab, peer: PathManagerSocket, chance: random.Random) -> None:
        self.lab, self.peer, self.chance = lab, peer, chance
        self.done: Counter[str] = Counter()
        for name in ("churn0", "churn1", "churn2", "churn-deep"):
            lab.cgroup(name)  # each has programs from the start: descriptors are compared
        self.server = lab.server(cgroup="srv")
        self.service = lab.service(config(*(policy(lab, *names) for names in POLICIES)))
        self.kept = lab.client(cgroup="kept")
        self.kept.open(KEPT)
        self.mesh = [Counter(mesh(lab))] * KEPT
        self.churn: tuple[Traffic, Traffic] | None = None
        self.burst = False
        self.announced: list[int] = []
        wait_equal(self.pairs, self.mesh, deadline_s=60)
        (self.link_up, self.address_there) = (True, False)

    def pairs(self) -> list[Counter[tuple[str, str]]]:
        ports = {int(c["local"].split()[-1]) for c in self.kept.report()}
        return pairs_of(self.lab, ports)

    # What goes wrong

    def kill(self) -> None:
        self.service.kill()
        self.service.start(deadline_s=60)

    def connections(self) -> None:
        """A second's worth; those of the second before end."""
        if self.churn is None:
            self.renew_churn()
        assert self.churn
        _, client = self.churn
        if self.burst:
            client.finish(120)
            client.close()
        client.begin("open", count=RATE, rate=RATE)
        self.burst = True

    def renew_churn(self) -> None:
        """New processes: the old ones remember every connection."""
        self.end_churn()
        server = self.lab.server("--sink", "--port", "5001")
        client = self.lab.client(None, "--sink", "--port", "5001", cgroup=f"churn{self.chance.randrange(3)}")
        self.churn = server, client

    def end_churn(self) -> None:
        for traffic in self.churn or ():
            traffic.process.kill()
            traffic.process.wait()
        self.churn, self.burst = None, False

    def lose_events(self) -> None:
        """The service stands still while more events come than its socket holds."""
        self.renew_churn()
        assert self.churn
        _, client = self.churn
        self.service.send_signal(signal.SIGSTOP)
        try:
            for _ in range(OVERRUN // 500):
                client.open(500, deadline_s=120)
                client.close()
        finally:
            self.service.send_signal(signal.SIGCONT)
        wait_for(
            lambda: self.service.get("/v1/status")["counters"].get("events_lost"),
            "lost events",
            deadline_s=60,
        )

    def flap(self) -> None:
        self.link_up = not self.link_up
        self.lab.set_link("client", 2, self.link_up)

    def renumber(self) -> None:
        self.address_there = not self.address_there
        change = self.lab.add_address if self.address_there else self.lab.del_address
        change("client", 1, "10.77.1.99")

    def announce(self) -> None:
        """The peer of one session: a hundred addresses that lead nowhere come, those before go."""
        token = self.chance.choice(sorted(self.lab.subflows("server")))
        with suppress(KernelRefused):  # the session has ended
            for number in range(100, 200):
                self.peer.announce(token, f"10.77.9.{number}", number)
            self.announced.append(token)
        self.withdraw(keep=3)

    def withdraw(self, keep: int = 0) -> None:
        while len(self.announced) > keep:
            token = self.announced.pop(0)
            for number in range(100, 200):
                with suppress(KernelRefused):
                    self.peer.withdraw(token, number)

    def make_cgroups(self) -> None:
        """Their owner makes some at once, one whose name is no text, and some too deep for a path."""
        top = self.lab.cgroup_root / self.lab.cgroup("churn-deep")[1:]
        made = [top / name for name in ("bad\udcff", *map(str, range(self.chance.randrange(30))))]
        for directory in made:
            directory.mkdir()
        with nested(top, "x" * 250, 17):
            pass
        for directory in made:
            directory.rmdir()

    # The whole

    def run(self, seconds: float) -> None:
        """Each fault again and again, at random times around its interval."""
        faults: dict[Callable[[], None], float] = {
            self.connections: 1,
            self.kill: 3600 / KILLS_PER_HOUR,
            self.lose_events: 60,
            self.flap: 7,
            self.renumber: 11,
            self.announce: 3,
            self.make_cgroups: 2,
            self.renew_churn: 45,
        }
        now = began = time.monotonic()
        due = {fault: now + self.chance.uniform(0.5, 1) * every for fault, every in faults.items()}
        while now < began + seconds:
            fault = min(due, key=lambda f: due[f])
            time.sleep(max(0.0, due[fault] - now))
            fault()
            self.done[fault.__name__] += 1
            self.kept.send(bytes=1000, deadline_s=120)
            now = time.monotonic()
            wait = (1 if fault == self.connections else self.chance.uniform(0.5, 1.5)) * faults[fault]
            # Kills come as often as they should, also where the machine is slow.
            due[fault] = wait + (due[fault] if fault == self.kill else now)

    def heal(self) -> None:
        self.end_churn()
        self.withdraw()
        self.lab.set_link("client", 2, True)
        if self.address_there:
            self.renumber()


def measure(service: Service) -> tuple[int, int]:
    """Resident memory and open descriptors of a service that has just started.

    The fewest descriptors of a second: the service opens some for a moment now and then.
    """
    service.kill()
    service.start(deadline_s=60)
    descriptors = []
    for _ in range(10):
        descriptors.append(len(list(Path(f"/proc/{service.process.pid}/fd").iterdir())))
        time.sleep(0.1)
    return service.rss_bytes(), min(descriptors)


def main() -> int:
    seed = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    print(f"{MINUTES:g} minutes; SOAK_SEED={seed}", flush=True)
    with Lab(client=2, server=1) as lab, peer_path_manager(lab) as peer:
        blackhole(lab, "to", "10.77.9.0/24")
        soak = Soak(lab, peer, random.Random(seed))
        rss, descriptors = measure(soak.service)
        soak.run(MINUTES * 60)
        soak.heal()
        # A pair that has failed until now is tried within five minutes.
        wait_equal(soak.pairs, soak.mesh, deadline_s=400)
        moved = assert_same_bytes(soak.kept, soak.server)
        rss_after, descriptors_after = measure(soak.service)
        wait_equal(soak.pairs, soak.mesh, deadline_s=60)
        print(f"faults: {dict(soak.done)}")
        print(f"{KEPT} sessions have their subflows, {moved} bytes arrived")
        print(f"resident {rss / 2**20:.1f} -> {rss_after / 2**20:.1f} MiB")
        print(f"descriptors {descriptors} -> {descriptors_after}")
        assert rss_after <= rss * RSS_GROWTH
        assert descriptors_after <= descriptors
    left = list(leftovers())
    assert not left, f"left behind: {left}"
    print("nothing is left behind")
    return 0


if __name__ == "__main__":
    sys.exit(main())
