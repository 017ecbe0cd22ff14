# SPDX-License-Identifier: Apache-2.0
"""``backup``: which interface the standby takes, when it is promoted, and what it is not confused by."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.lab import Lab
from tests.lab.oracle import Flow
from tests.lab.scenarios import config, policy, wait_pairs
from tests.lab.service import Service
from tests.lab.traffic import assert_same_bytes
from tests.lab.waiting import wait_equal, wait_for

Standbys = list[tuple[str, bool]]


def standbys(lab: Lab) -> Standbys:
    """(local address, backup flag) of each established join of the only session."""
    found: list[Flow] = [f for flows in lab.subflows().values() for f in flows]
    return sorted((f.local, f.backup) for f in found if f.state == "ESTAB" and not f.initial)


def wait_standbys(lab: Lab, *want: tuple[str, bool], deadline_s: float = 20.0) -> None:
    wait_for(lambda: standbys(lab), str(want), until=lambda s: s == sorted(want), deadline_s=deadline_s)


def wait_why(service: Service, ip: str, word: str) -> None:
    """Until the service has seen that an address is not usable (any more), for a reason with this word."""
    wait_for(
        lambda: {a["ip"]: a["why"] for a in service.get("/v1/addresses")["addresses"]},
        f"{ip} {word}",
        until=lambda found: word in found[ip],
    )


@pytest.mark.parametrize("family", [4, 6])
def test_a_deprecated_primary_is_not_down(make_lab: Callable[..., Lab], family: int) -> None:
    """Privacy extensions deprecate it while it carries data: the standby keeps its flag and its interface."""
    lab = make_lab(client=2, server=1)
    lab.server()
    primary, length = lab.address("client", 1, family), 64 if family == 6 else 24
    second = "10.77.1.77" if family == 4 else "fd00:77:1::77"
    lab.add_address("client", 1, second)
    service = lab.service({"addresses": {"all": True}, "policies": [policy(lab, "a", "backup")]})
    lab.client(lab.address("server", 1, family), "--bind", primary, cgroup="a").open()
    wait_standbys(lab, (lab.address("client", 2, family), True))
    option = f"-{family}"
    lifetimes = ("valid_lft", "forever", "preferred_lft", "0")
    lab.ip("client", option, "addr", "change", f"{primary}/{length}", "dev", "eth0", *lifetimes)
    wait_why(service, primary, "deprecated")
    service.reload()
    wait_standbys(lab, (lab.address("client", 2, family), True))


@pytest.mark.parametrize("family", [4, 6])
def test_a_primary_that_the_rules_exclude_is_not_down(make_lab: Callable[..., Lab], family: int) -> None:
    """The application chose its address: the rules are about other subflows."""
    lab = make_lab(client=3, server=1)
    lab.server()
    addresses = {"include": ["eth*"], "exclude": ["eth0"]}
    service = lab.service({"addresses": addresses, "policies": [policy(lab, "a", "backup")]})
    lab.client(lab.address("server", 1, family), cgroup="a").open()
    wait_standbys(lab, (lab.address("client", 2, family), True))
    service.reload()
    wait_standbys(lab, (lab.address("client", 2, family), True))


@pytest.mark.parametrize("family", [4, 6])
def test_the_next_interface_is_tried_when_a_standby_fails(make_lab: Callable[..., Lab], family: int) -> None:
    """docker0 comes first and never works; the modem does."""
    lab = make_lab(client=3, server=1)
    lab.server()
    rule = ("rule", "add", "pref", "10", "from", lab.address("client", 2, family), "prohibit")
    lab.ip("net", f"-{family}", *rule)
    service = lab.service(config(policy(lab, "a", "backup")))
    lab.client(lab.address("server", 1, family), cgroup="a").open()
    wait_standbys(lab, (lab.address("client", 3, family), True))
    wait_equal(
        lambda: [f["local"] for session in service.sessions() for f in session["failed"]],
        [lab.address("client", 2, family)],
    )


@pytest.mark.parametrize("family", [4, 6])
def test_a_host_with_one_interface_whose_address_changes(make_lab: Callable[..., Lab], family: int) -> None:
    """The primary is lost for good: its own interface is allowed then, and the session goes on."""
    lab = make_lab(client=1, server=1)
    server = lab.server()
    lab.service(config(policy(lab, "a", "backup")))
    client = lab.client(lab.address("server", 1, family), cgroup="a")
    client.open()
    wait_for(lambda: lab.established(), "a session", until=lambda counts: counts == [1])
    renewed = "10.77.1.77" if family == 4 else "fd00:77:1::77"
    lab.del_address("client", 1, lab.address("client", 1, family))
    lab.add_address("client", 1, renewed)
    wait_pairs(lab, [(renewed, lab.address("server", 1, family))])
    client.send(bytes=100_000)
    assert_same_bytes(client, server)
