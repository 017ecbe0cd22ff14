# SPDX-License-Identifier: Apache-2.0
"""The service behind its programs: in no hurry, but who asks it hears what is the case now."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.plugins import install
from tests.lab.scenarios import config, policy
from tests.lab.service import ROOT, Service, UnixConnection
from tests.lab.waiting import wait_equal

SESSIONS = 60
# Between two turns of a service that is stopped: more than its socket holds.
CONNECTIONS, AT_ONCE = 18_000, 500


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.server()
        lab.cgroup("a")
        yield lab


def start(lab: Lab, datapath: str = "bpf") -> Service:
    return lab.service(config(policy(lab, "a"), datapath=datapath))


def test_the_first_answer_is_complete(lab: Lab) -> None:
    """Sessions that have just come and gone, with their subflows: one request, without waiting."""
    service = start(lab)
    client = lab.client(cgroup="a")
    for _ in range(5):
        client.open(SESSIONS)
        lab.wait_subflows(2, SESSIONS)
        found = service.sessions(limit=1000)
        assert [len(session["subflows"]) for session in found] == [2] * SESSIONS
        assert {session["policy"] for session in found} == {"a"}
        client.close()
        wait_equal(lambda: lab.established("client"), [])
        assert service.sessions(limit=1000) == []
    counters = service.get("/v1/status")["counters"]
    assert counters["claimed"] == 5 * SESSIONS
    assert counters.get("open", 0) == counters.get("repairs", 0) == 0


def test_sessions_that_were_over_are_told(lab: Lab) -> None:
    """Each that came and went between two drains has its events, in order, and leaves nothing."""
    service = start(lab)
    client = lab.client(cgroup="a")
    service.send_signal(signal.SIGSTOP)
    client.open(SESSIONS // 2)
    lab.wait_subflows(2, SESSIONS // 2)
    client.close()
    wait_equal(lambda: lab.established("client"), [])
    service.send_signal(signal.SIGCONT)
    told = follow(service, SESSIONS // 2)
    assert len(told) == SESSIONS // 2
    for actions in told.values():
        assert actions[:3] == ["session created", "session established", "subflow established"]
        assert actions[-1] == "session closed"
    assert service.sessions() == []


def follow(service: Service, sessions: int) -> dict[str, list[str]]:
    """What happened to each session, by token, until so many have closed."""
    told: dict[str, list[str]] = {}
    connection = UnixConnection(service.socket_path)
    connection.request("GET", "/v1/events", headers={"Last-Event-ID": "0"})
    response = connection.getresponse()
    assert response.status == 200
    while sum(actions[-1] == "session closed" for actions in told.values()) < sessions:
        line = response.readline()
        assert line, told
        assert line != b": keep-alive\n", told
        if line.startswith(b"data:"):
            event = json.loads(line.removeprefix(b"data:"))
            if event.get("token"):
                told.setdefault(event["token"], []).append(f"{event['type']} {event['action']}")
    connection.close()
    return told


def test_a_command_is_answered_at_once(lab: Lab) -> None:
    """A subflow that the operator asks for is there (201) when the request is answered."""
    service = start(lab)
    lab.client(cgroup="a").open()
    lab.wait_subflows(2)
    (session,) = service.sessions()
    status, subflow = service.request("POST", f"/v1/sessions/{session['token']}/subflows", {})
    assert status == 201
    assert subflow["state"] == "established"


def test_scheduling_follows_the_policies(lab: Lab, tmp_path: Path) -> None:
    """It preempts nobody where programs do the work, and somebody where one of the policies has none."""
    target = install(tmp_path / "installed", ROOT / "docs/examples/per_interface")
    found = {"PYTHONPATH": f"{target}:{os.environ.get('PYTHONPATH', '')}"}
    service = lab.service(config(policy(lab, "a"), datapath="bpf"), env=found)
    assert os.sched_getscheduler(service.process.pid) == os.SCHED_BATCH
    service.configure(config(policy(lab, "a", "per_interface"), datapath="bpf"))
    service.reload()
    assert os.sched_getscheduler(service.process.pid) == os.SCHED_OTHER
    service.configure(config(policy(lab, "a"), datapath="bpf"))
    service.reload()
    assert os.sched_getscheduler(service.process.pid) == os.SCHED_BATCH
    service.terminate()
    assert os.sched_getscheduler(start(lab, "netlink").process.pid) == os.SCHED_OTHER


def test_an_overrun_while_reading_late(lab: Lab) -> None:
    """Events overrun the socket between two drains: the sessions are compared, and what lives is known."""
    service = start(lab)
    stays, churn = lab.client(cgroup="a"), lab.client()
    stays.open(SESSIONS)
    lab.wait_subflows(2, SESSIONS)
    service.send_signal(signal.SIGSTOP)
    for _ in range(0, CONNECTIONS, AT_ONCE):
        churn.open(AT_ONCE)
        churn.close()
    service.send_signal(signal.SIGCONT)
    wait_equal(lambda: service.get("/v1/status")["counters"].get("events_lost", 0) > 0, True)
    wait_equal(lambda: sorted(len(s["subflows"]) for s in service.sessions(limit=1000)), [2] * SESSIONS)
    stays.close()
    wait_equal(lambda: service.sessions(limit=1000), [])
