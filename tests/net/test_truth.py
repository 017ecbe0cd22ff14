# SPDX-License-Identifier: GPL-2.0-only
"""The service comes back to the kernel's truth, whatever it missed."""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.lab.lab import Lab
from tests.lab.scenarios import config, mesh, policy, wait_pairs, wait_reported
from tests.lab.service import Service
from tests.lab.waiting import wait_equal, wait_for

# Three events each, of some 800 bytes in the socket's buffer, which is 32 MiB: more than fit.
CONNECTIONS = 18_000


def tokens(service: Service) -> list[int]:
    return sorted(int(s["token"], 16) for s in service.sessions(limit=1000))


def test_lost_events(make_lab: Callable[..., Lab]) -> None:
    """Stopped while more events come than its socket holds, the service sees every session afterwards."""
    lab = make_lab(client=2, server=1)
    lab.server("--sink")
    service = lab.service(config(policy(lab, "a")))
    kept, churn = lab.client(None, "--sink", cgroup="a"), lab.client(None, "--sink", cgroup="b")
    kept.open(5)
    wait_pairs(lab, mesh(lab), sessions=5)
    service.send_signal(signal.SIGSTOP)
    opened = 0
    while opened < CONNECTIONS:
        churn.open(500)
        churn.close()
        opened += 500
    kept.close(2)
    kept.open(4)
    service.send_signal(signal.SIGCONT)
    wait_for(lambda: service.get("/v1/status")["counters"].get("events_lost", 0), "lost events")
    wait_pairs(lab, mesh(lab), sessions=7)
    wait_equal(lambda: tokens(service), sorted(lab.subflows()))
    # It hears what comes next, too.
    kept.open(3)
    wait_pairs(lab, mesh(lab), sessions=10)
    kept.close(1)
    wait_equal(lambda: tokens(service), sorted(lab.subflows()))
    wait_reported(service, 2, 9)
    assert service.ready()
