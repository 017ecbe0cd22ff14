# SPDX-License-Identifier: Apache-2.0
"""The path manager ``endpoints`` against the kernel's own: with the same table, the same subflows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from pyroute2 import MPTCP

from pm.linux.netlink.mptcp_pm_messages import AddressFlag
from tests.lab.lab import Lab, Side
from tests.lab.netns import inside
from tests.lab.scenarios import config, policy
from tests.lab.service import Service
from tests.lab.waiting import wait_equal, wait_for

C1, C2, C3 = "10.77.1.1", "10.77.2.1", "10.77.3.1"
S1, S2, S3 = "10.77.1.2", "10.77.2.2", "10.77.3.2"
PORT = "8765"


class Scenario(NamedTuple):
    """``ip mptcp endpoint add`` and ``limits set`` (subflows, add_addr_accepted) on either side.

    ``subflows`` is how many the client has then, the initial one included.
    """

    client: Sequence[str] = ()
    server: Sequence[str] = ()
    limits: tuple[int, int] = (8, 8)
    server_limits: tuple[int, int] = (8, 8)
    subflows: int = 2
    host: str = S1
    refuses: bool = False  # joins to the server's initial address (the C flag)


SCENARIOS = {
    "no endpoints": Scenario(subflows=1),
    "subflow": Scenario([f"{C2} id 7 subflow", f"{C3} subflow"], subflows=3),
    "subflow, IPv6": Scenario(["fd00:77:2::1 subflow", f"{C3} subflow"], host="fd00:77:1::2", subflows=2),
    "subflow of the initial address": Scenario([f"{C1} id 9 subflow", f"{C2} subflow"]),
    "backup": Scenario([f"{C2} subflow backup"]),
    "backup of the initial address": Scenario([f"{C1} subflow backup", f"{C2} subflow"]),
    "dev": Scenario([f"{C2} dev eth1 subflow"]),
    "limit of subflows": Scenario([f"{C2} subflow", f"{C3} subflow"], limits=(1, 0)),
    "limit of 0": Scenario([f"{C2} subflow"], [f"{S2} signal"], limits=(0, 8), subflows=1),
    "limit of the server": Scenario([f"{C2} subflow", f"{C3} subflow"], server_limits=(1, 0)),
    "signal": Scenario([], [f"{S2} id 11 signal"], limits=(8, 1)),
    "signal, IPv6": Scenario([], ["fd00:77:2::2 signal"], limits=(8, 1), host="fd00:77:1::2"),
    "signal, not accepted": Scenario([], [f"{S2} signal"], limits=(8, 0), subflows=1),
    "signal, one accepted": Scenario([], [f"{S2} signal", f"{S3} signal"], limits=(8, 1)),
    "signal with a port": Scenario([], [f"{S2} port {PORT} signal"], limits=(8, 1)),
    "signal backup": Scenario([], [f"{S2} signal backup"], limits=(8, 1)),
    "signal of the client": Scenario([f"{C2} signal"], subflows=1),
    "subflow, and signal": Scenario([f"{C2} subflow"], [f"{S2} signal"], subflows=3),
    "subflow signal": Scenario([f"{C2} subflow signal"]),
    "fullmesh": Scenario(
        [f"{C1} subflow fullmesh", f"{C2} subflow fullmesh"], [f"{S2} signal"], limits=(8, 1), subflows=4
    ),
    "fullmesh, limited": Scenario([f"{C2} subflow fullmesh", f"{C3} subflow fullmesh"], limits=(1, 1)),
    "fullmesh of other addresses": Scenario(
        [f"{C3} subflow fullmesh backup"], [f"{S2} signal"], limits=(8, 1), subflows=3
    ),
    "refused initial address": Scenario(
        [f"{C2} subflow"], [f"{S2} signal"], limits=(2, 0), refuses=True, subflows=2
    ),
}

# Linux 6.18.
LAMINAR = {
    "laminar": Scenario([f"{C3} laminar", f"{C2} laminar"], [f"{S2} signal"]),
    "laminar, IPv6": Scenario(["fd00:77:3::1 laminar"], ["fd00:77:2::2 signal"], host="fd00:77:1::2"),
    "laminar backup": Scenario([f"{C3} backup laminar"], [f"{S2} signal"]),
    "laminar, nothing announced": Scenario([f"{C2} laminar"], subflows=1),
    "laminar of the initial address": Scenario([f"{C1} laminar"], [f"{S2} signal"], subflows=1),
    "laminar, two announced": Scenario([f"{C3} laminar"], [f"{S2} signal", f"{S3} signal"]),
    "two laminar, two announced": Scenario(
        [f"{C2} laminar", f"{C3} laminar"], [f"{S2} signal", f"{S3} signal"], subflows=3
    ),
    "laminar, and subflow": Scenario([f"{C2} subflow", f"{C3} laminar"], [f"{S2} signal"], subflows=3),
    "laminar, and fullmesh": Scenario(
        [f"{C2} subflow fullmesh", f"{C3} laminar"], [f"{S2} signal"], subflows=3
    ),
    "laminar, refused initial address": Scenario(
        [f"{C3} laminar"], [f"{S2} signal"], limits=(2, 0), refuses=True
    ),
}


class Twins:
    """Two labs of one form. The kernel's path manager has the sessions of one, ours those of the other."""

    def __init__(self, make_lab: Callable[..., Lab]) -> None:
        self.kernel, self.ours = (make_lab(client=3, server=3) for _ in range(2))
        self.services: list[Service] = []
        self.endpoints = ""
        for lab in self.labs:
            lab.server()
        for side in ("client", "server"):
            other = config(policy(self.ours, "other"), datapath="netlink")
            self.services.append(self.ours.service(other, ns=side))

    @property
    def labs(self) -> tuple[Lab, Lab]:
        return self.kernel, self.ours

    def set_up(self, scenario: Scenario) -> None:
        for lab in self.labs:
            self._fill(lab, "client", scenario.client, scenario.limits)
            self._fill(lab, "server", scenario.server, scenario.server_limits)
            lab.sysctl("server", net__mptcp__allow_join_initial_addr_port=int(not scenario.refuses))
        self.endpoints = " ".join((*scenario.client, *scenario.server))
        self.look()

    def look(self) -> None:
        """The services read the table at once."""
        with ThreadPoolExecutor() as executor:
            list(executor.map(Service.reload, self.services))

    def change(self, side: Side, *arguments: str) -> None:
        """``ip mptcp``, in both labs."""
        for lab in self.labs:
            mptcp(lab, side, *arguments)

    def compare(self, subflows: int) -> None:
        """Wait until both have as many subflows, and the same ones."""

        def pictures() -> tuple[list[tuple[object, ...]], ...]:
            return tuple(
                picture(lab, side, self.endpoints) for lab in self.labs for side in ("client", "server")
            )

        def same(found: Sequence[list[tuple[object, ...]]]) -> bool:
            return len(found[0]) == subflows and found[:2] == found[2:]

        wait_for(pictures, f"{subflows} subflows, and the same ones", until=same)

    def _fill(self, lab: Lab, side: Side, endpoints: Sequence[str], limits: tuple[int, int]) -> None:
        mptcp(lab, side, "endpoint", "flush")
        for endpoint in endpoints:
            add_endpoint(lab, side, endpoint)
        mptcp(lab, side, "limits", "set", "subflows", str(limits[0]), "add_addr_accepted", str(limits[1]))


@pytest.fixture
def twins(make_lab: Callable[..., Lab]) -> Twins:
    return Twins(make_lab)


def mptcp(lab: Lab, side: Side, *arguments: str) -> None:
    lab.run(side, "ip", "mptcp", *arguments)


def has_laminar() -> bool:
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (6, 18)


def add_endpoint(lab: Lab, side: Side, endpoint: str) -> None:
    address, *words = endpoint.split()
    if "laminar" not in words:
        mptcp(lab, side, "endpoint", "add", address, *words)
        return
    flags = sum(AddressFlag[word.upper()] for word in words)  # Debian's ip does not know the word
    key = "addr6" if ":" in address else "addr"

    def add() -> None:
        with MPTCP() as kernel:
            kernel.endpoint("add", **{key: address}, flags=flags)

    inside(lab.netns(side), add)


def picture(lab: Lab, side: Side, endpoints: str) -> list[tuple[object, ...]]:
    """Each established subflow: addresses with the device that it is bound to, a port that was announced, and
    flags, those of the peer first; the id of a local address where one of ``endpoints`` says it.
    """
    found = []
    for line in lab.run(side, "ss", "-tnaiOH").splitlines():
        if "tcp-ulp-mptcp" in line and line.startswith("ESTAB"):
            local, remote = line.split()[3:5]
            ends = [end.replace("::ffff:", "").rpartition(":") for end in (local, remote)]
            ports = [port for _, _, port in ends if port == PORT]
            flags, token = line.partition("tcp-ulp-mptcp flags:")[2].split()[:2]
            address = ends[0][0].strip("[]")
            ids = [token.rpartition("(id:")[2].rstrip(")")] if f"{address} id " in endpoints else []
            found.append((ends[0][0], ends[1][0], *ports, "B" in flags, "b" in flags, *ids))
    return sorted(found, key=str)


def test_the_same_table_gives_the_same_subflows(twins: Twins) -> None:
    """Each flag and limit of ``ip mptcp``, at both ends."""
    compare_all(twins, SCENARIOS)


@pytest.mark.skipif(not has_laminar(), reason="laminar endpoints are of Linux 6.18")
def test_laminar_endpoints(twins: Twins) -> None:
    """Each takes one announced address, where no other endpoint takes it."""
    compare_all(twins, LAMINAR)


def compare_all(twins: Twins, scenarios: Mapping[str, Scenario]) -> None:
    for name, scenario in scenarios.items():
        twins.set_up(scenario)
        clients = [lab.client(scenario.host) for lab in twins.labs]
        for client in clients:
            client.open()
        try:
            twins.compare(scenario.subflows)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
        for client in clients:
            client.close()
        wait_equal(lambda: [lab.established() for lab in twins.labs], [[], []])


def test_living_sessions_follow_the_table(twins: Twins) -> None:
    """Endpoints that come, go and change their flags, at either end; the services look by themselves."""
    twins.set_up(Scenario())
    for lab in twins.labs:
        lab.client().open()
    twins.compare(1)
    twins.change("client", "endpoint", "add", C2, "id", "5", "subflow")
    twins.compare(2)
    twins.change("client", "endpoint", "change", "id", "5", "backup")
    twins.change("server", "endpoint", "add", S2, "id", "6", "signal")
    twins.compare(3)
    twins.change("client", "endpoint", "change", "id", "5", "fullmesh", "nobackup")
    twins.change("server", "endpoint", "delete", "id", "6")
    twins.compare(2)
    twins.change("client", "endpoint", "delete", "id", "5")
    twins.compare(1)


def test_without_a_policy_nothing_changes(lab: Lab) -> None:
    """No sysctl, no program: the kernel serves its endpoints. A reload takes them, and gives them back."""
    mptcp(lab, "client", "endpoint", "add", C2, "subflow")
    lab.server()
    service = lab.service({"policies": []})
    assert userspace(lab) is False
    assert classifiers(lab) == []
    lab.client().open()
    wait_equal(lambda: lab.established(), [2])
    (session,) = wait_for(service.sessions, "the session")
    assert (session["policy"], session["path_manager"]) == (None, None)
    on_netlink = service.datapath() == "netlink"
    service.configure(config(policy(lab, "a")))
    service.reload()
    assert userspace(lab) is on_netlink
    service.configure({"policies": []})
    service.reload()
    assert userspace(lab) is False
    assert classifiers(lab) == []
    lab.client().open()
    wait_equal(lambda: lab.established(), [2, 2])


def userspace(lab: Lab) -> bool:
    return lab.read_sysctl("client", "net.mptcp.pm_type") == "1"


def classifiers(lab: Lab) -> list[object]:
    """The programs that the service of a lab attached, anywhere."""
    return [pin.name for pin in lab.pins() if "link" in pin.name]


def test_a_policy_that_names_it_is_not_its_parents(make_lab: Callable[..., Lab]) -> None:
    """Inside a cgroup of a fullmesh policy: the endpoints decide, and on bpf nobody claims the session."""
    lab = make_lab(client=3, server=1)
    mptcp(lab, "client", "endpoint", "add", C2, "subflow")
    lab.server()
    service = lab.service(config(policy(lab, "a"), policy(lab, "a/b", "endpoints")))
    lab.client(cgroup="a/b").open()
    wait_equal(lambda: lab.established(), [2])
    lab.client(cgroup="a").open()
    wait_equal(lambda: sorted(lab.established()), [2, 3])
    found = {s["path_manager"]: s["program"] for s in service.sessions()}
    assert found == {"endpoints": None, "fullmesh": "fullmesh" if service.datapath() == "bpf" else None}
