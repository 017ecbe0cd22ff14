# SPDX-License-Identifier: Apache-2.0
"""Why a pair has no subflow: each reason made for real, the finding, and that its command helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.lab.firewall import DROP, OPTION, PROHIBIT, RESET, STRIP, firewall
from tests.lab.lab import Lab
from tests.lab.scenarios import config, drop, mesh, policy, router, wait_pairs
from tests.lab.service import ApiError, Service
from tests.lab.waiting import wait_for
from tests.lab.why import execute, findings, wait_finding

families = pytest.mark.parametrize("family", [4, 6])


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """One address of the server: the mesh has two pairs."""
    return make_lab(client=2, server=1)


def start(lab: Lab, family: int = 4, path_manager: Any = "fullmesh", **top: Any) -> Service:
    """A service, and one session of the policy a."""
    lab.server()
    service = lab.service(config(policy(lab, "a", path_manager), **top))
    lab.client(lab.address("server", 1, family), cgroup="a").open()
    wait_for(service.sessions, "the session")
    return service


def second(lab: Lab, family: int = 4) -> str:
    return lab.address("client", 2, family)


def forget_rule(lab: Lab, family: int = 4) -> None:
    """Packets from the second address leave by link 1 then."""
    lab.ip("client", f"-{family}", "rule", "del", "from", second(lab, family))


def second_default(lab: Lab, family: int = 4) -> None:
    """As DHCP leaves it: told apart from the first default route by the metric only."""
    via = router(lab, 2, family)
    lab.ip("client", "route", "add", "default", "via", via, "dev", "eth1", "metric", "2000")


def pairs_of(service: Service) -> list[dict[str, Any]]:
    (session,) = service.sessions()
    pairs: list[dict[str, Any]] = service.get(f"/v1/sessions/{session['token']}/why")["pairs"]
    return pairs


# Routing


@families
def test_a_rule_is_missing(lab: Lab, family: int) -> None:
    """There is a table for the link, and nothing leads to it: the rule that does is named."""
    forget_rule(lab, family)
    service = start(lab, family)
    found = wait_finding(service, "no_route")
    ask = f"ip route get {lab.address('server', 1, family)} from {second(lab, family)}"
    assert found["evidence"][0] == f"{ask}: dev eth0"
    assert "table 102 has a route over eth1" in str(found["evidence"])
    assert found["commands"][-1] == ask
    assert " dev eth0 " in execute(lab, service, ask)
    assert found["commands"][0].endswith("lookup 102")
    execute(lab, service, found["commands"][0])
    wait_pairs(lab, mesh(lab, family))
    assert findings(service) == {}


@families
def test_no_route_over_the_link(lab: Lab, family: int) -> None:
    """Nobody can guess the router: the commands work once it is written for GATEWAY."""
    forget_rule(lab, family)
    lab.ip("client", f"-{family}", "route", "flush", "table", "102")
    service = start(lab, family)
    found = wait_finding(service, "no_route")
    assert "there is no route over eth1 to there" in found["text"]
    router = next(
        line.split()[3].split("/")[0]
        for line in lab.ip(
            "net", "-o", f"-{family}", "addr", "show", "dev", "br2", "scope", "global"
        ).splitlines()
    )
    for line in found["commands"]:
        execute(lab, service, line, GATEWAY=router)
    wait_pairs(lab, mesh(lab, family))


@families
def test_a_second_default_route_and_nothing_is_bound(lab: Lab, family: int) -> None:
    """With bind_interface false the routes of a laptop do nothing: a rule and a table do."""
    forget_rule(lab, family)
    lab.ip("client", f"-{family}", "route", "flush", "table", "102")
    second_default(lab, family)
    service = start(lab, family, addresses={"include": ["eth*"], "bind_interface": False})
    found = wait_finding(service, "no_route")
    assert "`addresses.bind_interface: auto` needs none" in found["text"]
    for line in found["commands"]:
        execute(lab, service, line)
    wait_pairs(lab, mesh(lab, family))


def test_a_route_that_leads_into_a_tunnel(lab: Lab) -> None:
    """A VPN is not bypassed, and the second pair waits until the VPN is gone."""
    lab.ip("client", "tuntap", "add", "wg0", "mode", "tun")
    lab.ip("client", "link", "set", "wg0", "up")
    lab.ip("client", "route", "add", "default", "dev", "wg0", "table", "7")
    lab.ip("client", "rule", "add", "from", second(lab), "pref", "7", "table", "7")
    service = start(lab)
    found = wait_finding(service, "route_into_tunnel")
    assert "wg0" in found["text"]
    lab.ip("client", "rule", "del", "pref", "7")
    wait_pairs(lab, mesh(lab))


# rp_filter


@pytest.mark.parametrize("interface", ["all", "eth1"])
def test_strict_rp_filter_here(lab: Lab, interface: str) -> None:
    """A bound subflow leaves, and its answer is dropped here: counted by the kernel, and let in by 2."""
    forget_rule(lab)
    second_default(lab)
    lab.run("client", "sysctl", "-qw", f"net.ipv4.conf.{interface}.rp_filter=1")
    service = start(lab)
    found = wait_finding(service, "rp_filter")
    assert not found["likely"]
    wait_for(
        lambda: wait_finding(service, "rp_filter")["evidence"],
        "the kernel's own counter",
        until=lambda facts: "TcpExtIPReversePathFilter rose" in str(facts),
    )
    for line in found["commands"]:
        execute(lab, service, line)
    wait_pairs(lab, mesh(lab), deadline_s=30)


def test_strict_rp_filter_at_a_router(lab: Lab) -> None:
    """Nothing here tells that from a firewall: that it is not this host is certain, the rest is likely."""
    lab.ip("net", "route", "add", second(lab), "dev", "br1")
    lab.sysctl("net", net__ipv4__conf__br2__rp_filter=1)
    service = start(lab)
    found = wait_finding(service, "syn_unanswered")
    assert found["likely"]
    assert "rp_filter of this host does not drop the answer" in found["evidence"]
    with pytest.raises(AssertionError):  # plain TCP does not get through either
        execute(lab, service, found["commands"][0])
    lab.sysctl("net", net__ipv4__conf__br2__rp_filter=2)
    lab.ip("net", "route", "del", second(lab), "dev", "br1")
    wait_pairs(lab, mesh(lab), deadline_s=30)


def test_an_address_that_no_router_expects(lab: Lab) -> None:
    """An address on a dummy leaves by link 1, whose router has no way back to it."""
    ip = "192.0.2.7"
    try:
        lab.ip("client", "link", "add", "dum0", "type", "dummy")
    except AssertionError:
        pytest.skip("this kernel has no dummy interfaces (CONFIG_DUMMY)")
    lab.ip("client", "link", "set", "dum0", "up")
    lab.ip("client", "addr", "add", f"{ip}/32", "dev", "dum0")
    lab.sysctl("client", net__ipv4__conf__dum0__rp_filter=1)  # says nothing: the answer comes on eth0
    service = start(lab, addresses={"include": ["eth0", "dum0"]})
    found = wait_finding(service, "source_filtered")
    assert found["likely"]
    assert f"from {ip}: dev eth0" in str(found["evidence"])
    lab.ip("net", "route", "add", ip, "via", lab.address("client", 1))
    remote = lab.address("server", 1)
    wait_pairs(lab, [(lab.address("client", 1), remote), (ip, remote)], deadline_s=30)


# No answer, and wrong ones


def test_a_firewall_drops_joins(lab: Lab) -> None:
    """The SYN's age and retransmits are shown; curl gets through, and so does MPTCP once the rule is gone."""
    with firewall(lab, second(lab), *OPTION, *DROP):
        service = start(lab)
        found = wait_finding(service, "syn_unanswered")
        assert found["likely"]
        wait_for(
            lambda: pairs_of(service)[0],
            "a SYN that was sent again",
            until=lambda pair: (pair["retransmits"] or 0) >= 1,
        )
        (pair,) = pairs_of(service)
        assert (pair["state"], pair["local"]) == ("opening", second(lab))
        assert pair["age_s"] >= 1
        (session,) = service.sessions()
        (missing,) = service.get(f"/v1/sessions/{session['token']}")["missing"]
        assert (missing["state"], missing["local"]) == ("opening", second(lab))
        assert missing["retransmits"] >= 1
        assert "curl" in found["commands"][0]
    wait_pairs(lab, mesh(lab), deadline_s=30)


def test_a_firewall_that_resets(lab: Lab) -> None:
    """An RST at once: tried again later, and at once by hand."""
    with firewall(lab, second(lab), *RESET):
        service = start(lab)
        assert wait_finding(service, "connection_refused")["likely"]
        again = wait_finding(service, "backoff")["commands"][0]
    execute(lab, service, again)
    wait_pairs(lab, mesh(lab))


def test_a_router_that_answers_with_icmp(lab: Lab) -> None:
    """The kernel believes it, and so does the finding: nothing is guessed."""
    with firewall(lab, second(lab), *PROHIBIT):
        service = start(lab)
        found = wait_finding(service, "unreachable")
        assert not found["likely"]
        assert "EHOSTUNREACH" in str(found["evidence"])
    wait_pairs(lab, mesh(lab), deadline_s=30)


def test_a_middlebox_removes_the_options_of_joins(lab: Lab) -> None:
    """A SYN/ACK without MP_JOIN."""
    with firewall(lab, second(lab), *STRIP):
        service = start(lab)
        assert wait_finding(service, "join_option_missing")["likely"]
    wait_pairs(lab, mesh(lab), deadline_s=30)


def test_the_limit_of_the_peer(make_lab: Callable[..., Lab]) -> None:
    """It refuses after its SYN/ACK; a larger limit there helps the next connection."""
    lab = make_lab(client=2, server=1, limit=0)
    service = start(lab)
    found = wait_finding(service, "refused_by_peer")
    counted = execute(lab, service, found["commands"][1])
    assert int(counted.split("MPTcpExtMPJoinRejected")[1].split()[0]) > 0
    execute(lab, service, found["commands"][0])
    lab.client(cgroup="a").open()
    wait_for(lambda: 2 in lab.established(), "a session with two subflows")


def test_a_subflow_that_the_kernel_does_not_open(lab: Lab) -> None:
    """It has no port left for the second one from the address."""
    lab.sysctl("client", net__ipv4__ip_local_port_range="10000 10000")
    service = start(lab, path_manager={"fullmesh": {"subflows_per_pair": 2}})
    found = wait_finding(service, "refused_by_kernel")
    assert "EADDRINUSE" in str(found["evidence"])
    assert not found["likely"]


def test_a_subflow_that_was_lost(lab: Lab) -> None:
    """It worked, and somebody ended it: it is opened again a second later."""
    service = start(lab)
    wait_pairs(lab, mesh(lab))
    lab.run("client", "ss", "-K", "src", second(lab))
    found = wait_finding(service, "subflow_lost")
    assert "ECONNABORTED" in str(found["evidence"])
    wait_pairs(lab, mesh(lab))


def test_a_subflow_that_got_stuck(lab: Lab) -> None:
    """A NAT forgot the second path, and the first one is down."""
    lab.server()
    service = lab.service(config(policy(lab, "a", "backup")))
    client = lab.client(cgroup="a")
    client.open()
    wait_pairs(lab, mesh(lab))
    (dead,) = [f for fs in lab.subflows().values() for f in fs if f.local == second(lab)]
    lab.ip("net", "rule", "add", "pref", "5", "from", second(lab), "blackhole")
    drop(lab, dead)
    lab.set_link("client", 1, up=False)
    client.begin("send", bytes=100_000)
    assert wait_finding(service, "stuck", deadline_s=30)["likely"]
    lab.ip("net", "rule", "del", "pref", "5")
    client.finish(60)


# By hand, and what nobody knows


def test_a_subflow_that_was_closed_by_hand(lab: Lab) -> None:
    """The command opens it again."""
    service = start(lab)
    wait_pairs(lab, mesh(lab))
    (session,) = service.sessions()
    (subflow,) = [s for s in session["subflows"] if s["local"]["ip"] == second(lab)]
    service.delete(f"/v1/sessions/{session['token']}/subflows/{subflow['id']}")
    found = wait_finding(service, "closed_by_operator")
    execute(lab, service, found["commands"][0])
    wait_pairs(lab, mesh(lab))


@pytest.mark.parametrize("token", ["0xdeadbeef", "hello", "4294967296", "%2e%2e"])
def test_a_token_that_nobody_knows(lab: Lab, token: str) -> None:
    """One clear line, whether it is none, or one that has ended."""
    service = lab.service(config(policy(lab, "a")))
    with pytest.raises(ApiError, match="no session") as refused:
        service.get(f"/v1/sessions/{token}/why")
    assert refused.value.status == 404
    assert "Traceback" not in service.log()
