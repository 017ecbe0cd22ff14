# SPDX-License-Identifier: Apache-2.0
"""docker/compose.yaml as it is shipped, with an application that tests drive: NET_ADMIN alone, one policy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.containers import SIDECAR, Project, docker, kill, project, run_sidecar
from tests.lab.oracle import Flow
from tests.lab.traffic import Traffic, assert_same_bytes
from tests.lab.waiting import wait_for

FILES = ("docker/compose.yaml", "tests/container/compose.yaml")
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def shipped() -> Iterator[Project]:
    with project(*FILES, name="-shipped") as made:
        made.up()
        yield made


@pytest.fixture
def server(shipped: Project) -> Iterator[Traffic]:
    traffic = shipped.traffic("server", "server")
    yield traffic
    shipped.end(traffic)


def connect(shipped: Project) -> Traffic:
    """A client in the application's container with one session, which has a subflow on each network."""
    client = shipped.traffic("application", "client", "server")
    client.open()
    wait_for(lambda: joined(shipped), "a subflow on each network", until=lambda found: len(found) >= 2)
    return client


def joined(shipped: Project) -> set[str]:
    """The local addresses of established subflows, by the kernel's word."""

    def established(flows: list[Flow]) -> set[str]:
        return {flow.local for flow in flows if flow.state == "ESTAB"}

    sessions = list(map(established, shipped.subflows().values()))
    return max(sessions, key=len, default=set())


def test_both_networks_carry_data(shipped: Project, server: Traffic) -> None:
    """With nothing mounted the sidecar owns the application's session, and both networks carry data."""
    client = connect(shipped)
    client.send(bytes=64 * MEBIBYTE)
    acked = shipped.acked()
    assert len(acked) == 2
    assert all(carried > MEBIBYTE for carried in acked.values()), acked
    assert assert_same_bytes(client, server) > 64 * MEBIBYTE
    assert {session["policy"] for session in shipped.sessions()} == {"application"}
    assert shipped.ask("status")["selection"] == "namespace"
    assert [r["selection"] for r in shipped.events() if r["event"] == "started"] == ["namespace"]
    shipped.end(client)


def test_application_restarted_and_replaced(shipped: Project, server: Traffic) -> None:
    """In three containers the sidecar runs on, whatever happens to the application's container."""
    before = shipped.state(SIDECAR)["StartedAt"]
    for change in (
        ["restart", "application"],
        ["up", "--detach", "--force-recreate", "--no-deps", "application"],
    ):
        shipped.compose(*change)
        client = connect(shipped)
        shipped.end(client)
    assert shipped.state(SIDECAR)["StartedAt"] == before


def test_sidecar_killed_and_replaced(shipped: Project, server: Traffic) -> None:
    """Sessions live on without a sidecar, and the next one takes them over."""
    client = connect(shipped)
    token = max(shipped.subflows().items(), key=lambda entry: len(entry[1]))[0]
    kill(shipped.state(SIDECAR)["Pid"])
    wait_for(lambda: shipped.state(SIDECAR)["RestartCount"], "a sidecar that was restarted", deadline_s=20)
    wait_for(shipped.ready, "a sidecar that is ready", deadline_s=20)
    owned = [s["policy"] for s in shipped.sessions() if int(s["token"], 16) == token]
    assert owned == ["application"]
    client.send(bytes=MEBIBYTE)
    shipped.up("--force-recreate", "--no-deps", SIDECAR)
    client.send(bytes=MEBIBYTE)
    assert_same_bytes(client, server)
    assert len(joined(shipped)) == 2
    shipped.end(client)


def test_second_sidecar_is_refused(shipped: Project) -> None:
    """One service per namespace, although each container has a /run of its own; the first goes on."""
    status, text = run_sidecar(shipped.container("network"))
    assert status == 1
    assert "already running" in text
    assert shipped.ready()


def test_two_containers(shipped: Project) -> None:
    """The namespace goes with the server's container: the sidecar leaves, and comes to the new one."""
    sidecar = "server-mptcp-pm"
    before = shipped.state(sidecar)["StartedAt"]
    docker("restart", "--time", "0", shipped.container("server"))
    wait_for(
        lambda: shipped.state(sidecar)["StartedAt"] != before and shipped.ready(sidecar),
        "a sidecar in the new namespace",
        deadline_s=30,
    )
    assert "eth0" in shipped.run(sidecar, "mptcp-pm", "addresses")
    # A replaced server: the old container is gone, and Docker cannot restart what joined its network.
    shipped.compose("up", "--detach", "--force-recreate", "--no-deps", "server")
    wait_for(lambda: shipped.state(sidecar)["Status"] == "exited", "a sidecar that has left", deadline_s=30)
    shipped.up()
    assert "eth0" in shipped.run(sidecar, "mptcp-pm", "addresses")
