# SPDX-License-Identifier: Apache-2.0
"""The shipped programs follow addresses and links on living sessions, without the service and beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import config, mesh, pairs_of, policy, wait_pairs, wait_reported
from tests.lab.service import Service
from tests.lab.traffic import Traffic
from tests.lab.waiting import wait_equal, wait_for

FAMILIES = pytest.mark.parametrize("family", [4, 6])
SESSIONS = 1000
FIRST_GIVEN = 240  # ids that programs give


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.server()
        yield lab


def begin(
    lab: Lab, family: int, path_manager: str = "fullmesh", *, include: tuple[str, ...] = ("eth*",)
) -> tuple[Service, Traffic]:
    """A service with one policy, and a client of it that has no session yet."""
    rules = {"include": list(include)}
    service = lab.service(config(policy(lab, "a", path_manager), datapath="bpf", addresses=rules))
    return service, lab.client(lab.address("server", 1, family), cgroup="a")


def begin_without_second(
    lab: Lab, family: int, path_manager: str = "fullmesh"
) -> tuple[str, Service, Traffic]:
    """As ``begin``, while the client has no address on link 2: the one that it had."""
    second = lab.address("client", 2, family)
    lab.del_address("client", 2, second)
    return second, *begin(lab, family, path_manager)


def pairs(lab: Lab, family: int, *links: int) -> list[tuple[str, str]]:
    """Subflows from the client's addresses on these links."""
    return [mesh(lab, family)[link - 1] for link in links]


def standbys(lab: Lab) -> list[tuple[str, bool]]:
    """(local address, whether it is a backup) of the subflows that are not the initial one."""
    flows = [f for flows in lab.subflows("client").values() for f in flows]
    return [(f.local, f.backup) for f in flows if f.state == "ESTAB" and not f.initial]


def joins(lab: Lab) -> str:
    """How many MP_JOINs the client has sent, as nstat says it."""
    return lab.run("client", "nstat", "-asz", "MPTcpExtMPJoinSynTx")


def opened_by_service(service: Service) -> int:
    counters: dict[str, Any] = service.get("/v1/status")["counters"]
    return int(counters.get("open", 0)) + int(counters.get("repairs", 0))


# Without the service


@FAMILIES
def test_address_that_comes(lab: Lab, family: int) -> None:
    """It carries a subflow of the session that lives, and of the next one."""
    second, service, client = begin_without_second(lab, family)
    service.kill()
    client.open()
    wait_pairs(lab, pairs(lab, family, 1))
    lab.add_address("client", 2, second)
    wait_pairs(lab, pairs(lab, family, 1, 2))
    client.open()
    wait_pairs(lab, pairs(lab, family, 1, 2), sessions=2)


@FAMILIES
def test_address_that_comes_while_there_is_no_session(lab: Lab, family: int) -> None:
    """The next session uses it."""
    second, service, client = begin_without_second(lab, family)
    service.kill()
    lab.add_address("client", 2, second)
    client.open()
    wait_pairs(lab, pairs(lab, family, 1, 2))


@FAMILIES
def test_carrier_that_comes(lab: Lab, family: int) -> None:
    """A link without a carrier takes no subflow; it has one when the carrier is there."""
    lab.set_link("client", 2, up=False)
    service, client = begin(lab, family)
    service.kill()
    client.open()
    wait_pairs(lab, pairs(lab, family, 1))
    lab.set_link("client", 2, up=True)
    wait_pairs(lab, pairs(lab, family, 1, 2))


@FAMILIES
def test_link_that_comes(lab: Lab, family: int) -> None:
    """A link that was down takes no subflow; it has one when it is up."""
    lab.ip("client", "link", "set", "eth1", "down")
    service, client = begin(lab, family)
    service.kill()
    client.open()
    wait_pairs(lab, pairs(lab, family, 1))
    lab.ip("client", "link", "set", "eth1", "up")
    wait_pairs(lab, pairs(lab, family, 1, 2))


@FAMILIES
def test_carrier_that_goes(lab: Lab, family: int) -> None:
    """Sessions that begin meanwhile open nothing there, and do when it is back."""
    service, client = begin(lab, family)
    service.kill()
    client.open()
    wait_pairs(lab, pairs(lab, family, 1, 2))
    before = joins(lab)
    lab.set_link("client", 2, up=False)
    client.open()
    wait_for(lambda: len(pairs_of(lab)) == 2, "two sessions")
    client.send(bytes=5000)
    assert joins(lab) == before
    lab.set_link("client", 2, up=True)
    wait_pairs(lab, pairs(lab, family, 1, 2), sessions=2)


def test_duplicate_address(lab: Lab) -> None:
    """An address that somebody else on the link has takes no subflow, and has one once it is the client's."""
    second, service, client = begin_without_second(lab, 6)
    service.kill()
    lab.sysctl("client", net__ipv6__conf__eth1__accept_dad=1)
    lab.ip("net", "addr", "add", f"{second}/64", "dev", "br2", "nodad")
    client.open()
    wait_pairs(lab, pairs(lab, 6, 1))
    before = joins(lab)
    lab.ip("client", "addr", "add", f"{second}/64", "dev", "eth1")
    wait_for(lambda: "dadfailed" in lab.ip("client", "addr", "show", "dev", "eth1"), "a duplicate")
    client.open()
    wait_pairs(lab, pairs(lab, 6, 1), sessions=2)
    assert joins(lab) == before
    lab.ip("net", "addr", "del", f"{second}/64", "dev", "br2")
    lab.ip("client", "addr", "del", f"{second}/64", "dev", "eth1")
    lab.add_address("client", 2, second)
    wait_pairs(lab, pairs(lab, 6, 1, 2), sessions=2)


@FAMILIES
def test_initial_address_of_ndiffports(lab: Lab, family: int) -> None:
    """Its subflows end while it is away: the session has as many again once it is back."""
    first = lab.address("client", 1, family)
    service, client = begin(lab, family, "ndiffports")
    service.kill()
    client.open()
    wait_pairs(lab, pairs(lab, family, 1) * 2)
    lab.del_address("client", 1, first)
    lab.run("client", "ss", "-K", "dport", "=", "5000")
    wait_equal(lambda: sum(map(len, lab.subflows("client").values())), 0)
    lab.add_address("client", 1, first)
    wait_pairs(lab, pairs(lab, family, 1) * 2)
    client.send(bytes=5000)


@FAMILIES
def test_interface_that_the_service_did_not_know(lab: Lab, family: int) -> None:
    """Its addresses are not used; an interface that the rules exclude is not used, either."""
    second = lab.address("client", 2, family)
    lab.del_address("client", 2, second)
    service, client = begin(lab, family, include=("eth0",))
    service.kill()
    client.open()
    wait_pairs(lab, pairs(lab, family, 1))
    lab.add_address("client", 2, second)
    lab.ip("client", "link", "add", "eth7", "type", "veth", "peer", "name", "eth8")
    for name, ip in (("eth7", "10.3.0.1/24"), ("eth8", "10.4.0.1/24")):
        lab.ip("client", "link", "set", name, "up")
        lab.ip("client", "addr", "add", ip, "dev", name)
    client.open()
    wait_pairs(lab, pairs(lab, family, 1), sessions=2)


@FAMILIES
def test_the_only_address_goes(lab: Lab, family: int) -> None:
    """The address of the only subflow goes, and another link comes: the session lives on from there."""
    first, second = (lab.address("client", link, family) for link in (1, 2))
    lab.set_link("client", 2, up=False)
    service, client = begin(lab, family)
    service.kill()
    client.open()
    wait_pairs(lab, pairs(lab, family, 1))
    lab.del_address("client", 1, first)
    lab.set_link("client", 2, up=True)
    wait_for(lambda: any(local == second for found in pairs_of(lab) for local, _ in found), "a subflow")
    client.send(bytes=5000)


def test_many_sessions(lab: Lab) -> None:
    """An address comes: each of 1,000 sessions has a subflow from it."""
    lab.sysctl("client", **{"net.mptcp.bpf_open_rate": 0})
    second, service, client = begin_without_second(lab, 4)
    service.kill()
    client.open(SESSIONS)
    wait_pairs(lab, pairs(lab, 4, 1), sessions=SESSIONS, deadline_s=30)
    lab.add_address("client", 2, second)
    wait_pairs(lab, pairs(lab, 4, 1, 2), sessions=SESSIONS, deadline_s=30)


@FAMILIES
def test_standby_on_an_address_that_comes(lab: Lab, family: int) -> None:
    """`backup` opens it as one; when the primary's address goes it is none, and again when it is back."""
    first = lab.address("client", 1, family)
    second, service, client = begin_without_second(lab, family, "backup")
    service.kill()
    client.open()
    wait_pairs(lab, pairs(lab, family, 1))
    lab.add_address("client", 2, second)
    wait_equal(lambda: standbys(lab), [(second, True)])
    lab.del_address("client", 1, first)
    wait_equal(lambda: standbys(lab), [(second, False)])
    lab.add_address("client", 1, first)
    wait_equal(lambda: standbys(lab), [(second, True)])


# Beside the service


@FAMILIES
def test_the_next_service_keeps_what_the_program_did(lab: Lab, family: int) -> None:
    """It takes over the slot and the id of an address that came without it, and opens nothing again."""
    second, service, client = begin_without_second(lab, family)
    service.kill()
    client.open()
    lab.add_address("client", 2, second)
    wait_pairs(lab, pairs(lab, family, 1, 2))
    service.start()
    wait_reported(service, 2)
    client.open()
    wait_pairs(lab, pairs(lab, family, 1, 2), sessions=2)
    wait_reported(service, 2, sessions=2)
    assert opened_by_service(service) == 0
    ids = {f.local_id for flows in lab.subflows("client").values() for f in flows if f.local == second}
    assert len(ids) == 1
    assert min(ids) >= FIRST_GIVEN


@FAMILIES
def test_beside_the_service(lab: Lab, family: int) -> None:
    """Both see addresses come, go and come again: the program opens every subflow, once."""
    second, service, client = begin_without_second(lab, family)
    for sessions in (1, 2, 3):
        client.open()
        wait_pairs(lab, pairs(lab, family, 1), sessions=sessions)
        lab.add_address("client", 2, second)
        wait_pairs(lab, pairs(lab, family, 1, 2), sessions=sessions)
        wait_reported(service, 2, sessions=sessions)
        assert opened_by_service(service) == 0
        lab.del_address("client", 2, second)
        wait_pairs(lab, pairs(lab, family, 1), sessions=sessions)
