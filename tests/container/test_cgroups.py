# SPDX-License-Identifier: Apache-2.0
"""docker/compose.cgroups.yaml: policies tell the containers of a namespace apart, and have TCP options."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.lab.capture import Segment
from tests.lab.containers import ROOT, SIDECAR, TRAFFIC_IMAGE, Project, docker, project
from tests.lab.waiting import wait_equal, wait_for

USER_TIMEOUT = 28  # RFC 5482


@pytest.fixture(scope="module")
def told_apart() -> Iterator[Project]:
    files = ("docker/compose.yaml", "docker/compose.cgroups.yaml", "tests/container/compose.yaml")
    with project(*files, name="-cgroups") as made:
        made.up()
        yield made


def policies(made: Project) -> list[str]:
    return sorted(session["policy"] or "no policy" for session in made.sessions())


def test_containers_have_policies_of_their_own(told_apart: Project) -> None:
    """The application's sessions have its policy, and those of a container beside it have none."""
    server = told_apart.traffic("server", "server")
    application = told_apart.traffic("application", "client", "server")
    # The idle container is in the namespace too, and in no cgroup of a policy.
    other = told_apart.beside("network", "client", "server")
    for client in (application, other):
        client.open()
    wait_equal(lambda: policies(told_apart), ["application", "no policy"])
    assert told_apart.ask("status")["selection"] == "cgroup"
    for traffic in (application, other, server):
        told_apart.end(traffic)


def test_options_on_the_wire(told_apart: Project) -> None:
    """The policy's TCP option is on both subflows of the application, and on none of its neighbour's."""
    (policy,) = yaml.safe_load(Path(ROOT, "docker/sidecar-cgroups/mptcp-pm.yaml").read_text())["policies"]
    assert policy["options"] == {"user_timeout": {"advertise": "30s"}}
    server = told_apart.traffic("server", "server")
    with told_apart.capture("network") as segments:
        application = told_apart.traffic("application", "client", "server")
        (theirs,) = application.open()
        wait_for(lambda: advertised(segments()), "both subflows", until=lambda found: len(found) == 2)
        other = told_apart.beside("network", "client", "server")
        (unowned,) = other.open()
        other.send(bytes=1)
        sources = advertised(segments())
    assert theirs in sources
    assert unowned in {endpoint(segment) for segment in segments()}
    assert unowned not in sources
    assert set(sources.values()) == {b"\x00\x1e"}  # in seconds, 30
    for traffic in (application, other, server):
        told_apart.end(traffic)


def endpoint(segment: Segment) -> str:
    ip, port = segment.source
    return f"{ip} {port}"


def advertised(segments: list[Segment]) -> dict[str, bytes]:
    """By source: the option's value."""
    return {
        endpoint(s): option.value for s in segments for option in s.options if option.kind == USER_TIMEOUT
    }


def test_programs_outlive_the_sidecar(told_apart: Project) -> None:
    """On a volume of type bpf the programs stay without a sidecar, and the next one finds all sessions."""
    server = told_apart.traffic("server", "server")
    docker("kill", told_apart.container(SIDECAR))
    pins = ["--volume", f"{told_apart.name}_pins:/pins", TRAFFIC_IMAGE, "find", "/pins", "-type", "f"]
    assert docker("run", "--rm", *pins).split()
    client = told_apart.traffic("application", "client", "server")
    client.open()
    told_apart.up()
    wait_equal(lambda: policies(told_apart), ["application"])
    for traffic in (client, server):
        told_apart.end(traffic)
