# SPDX-License-Identifier: Apache-2.0
"""``addresses.source_routing`` on the real kernel: what it makes, follows, takes over and removes."""

from __future__ import annotations

import json

import pytest

from tests.lab.lab import Lab
from tests.lab.router_advertisements import advertise, link_local
from tests.lab.scenarios import SERVER, config, make_laptop, policy, router, wait_pairs
from tests.lab.service import Config
from tests.lab.waiting import wait_equal, wait_for

PROTOCOL = "77"
PREFIX = "fd00:88:2::/64"
TABLES = 0x4D500000
FAMILIES = (4, 6)


@pytest.fixture(autouse=True)
def laptop(lab: Lab) -> None:
    """The client has a default route per link, and no rules of its own."""
    make_laptop(lab)


def configured(lab: Lab, *, source_routing: bool = True) -> Config:
    addresses = {"include": ["eth*"], "bind_interface": False, "source_routing": source_routing}
    return config(policy(lab, "a"), addresses=addresses)


def rules(lab: Lab, family: int) -> list[tuple[int, str]]:
    """(priority, source) of the rules that are ours, in the kernel's order."""
    shown = json.loads(lab.ip("client", "-j", "-N", "-d", f"-{family}", "rule", "show"))
    return [(r["priority"], r["src"]) for r in shown if r.get("protocol") == PROTOCOL]


def wanted_rules(lab: Lab, family: int) -> list[tuple[int, str]]:
    return [(32764, "all"), *((32765, ip) for ip in lab.addresses("client", family))]


def gateway(lab: Lab, family: int) -> str:
    """Of the default route in the table of link 2; "" for none."""
    (interface,) = json.loads(lab.ip("client", "-j", "link", "show", "dev", "eth1"))
    table = str(TABLES + interface["ifindex"])
    shown = lab.ip("client", "-j", f"-{family}", "route", "show", "table", "all", "proto", PROTOCOL)
    routes = [r for r in json.loads(shown) if r["table"] == table and r["dst"] == "default"]
    return str(routes[0]["gateway"]) if routes else ""


def routing(lab: Lab) -> list[str]:
    """All rules and routes of the client."""
    return [
        lab.ip("client", f"-{family}", *what)
        for family in FAMILIES
        for what in (("rule",), ("route", "show", "table", "all"))
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_subflows_leave_by_their_own_link_without_being_bound(lab: Lab, family: int) -> None:
    """What DHCP and router advertisements change is followed, and nothing is left at the end."""
    before = routing(lab)
    lab.server("--address", SERVER[family])
    service = lab.service(configured(lab))
    assert rules(lab, family) == wanted_rules(lab, family)
    lab.client(SERVER[family], cgroup="a").open()
    wait_pairs(lab, [(ip, SERVER[family]) for ip in lab.addresses("client", family)])
    assert {f.device for flows in lab.subflows().values() for f in flows} == {""}

    def default(verb: str, via: str, metric: int, *more: str) -> None:
        words = (verb, "default", "via", via, "dev", "eth1", "metric", str(metric), *more)
        lab.ip("client", f"-{family}", "route", *words)

    here, other = router(lab, 2, family), "10.77.2.253" if family == 4 else "fe80::1"
    assert gateway(lab, family) == here
    default("add", other, 50, "proto", "dhcp" if family == 4 else "ra")
    wait_equal(lambda: gateway(lab, family), other)
    default("del", other, 50)
    wait_equal(lambda: gateway(lab, family), here)
    default("del", here, 2000)
    wait_equal(lambda: gateway(lab, family), "")
    lab.set_link("client", 2, up=False)
    wait_equal(lambda: rules(lab, family), wanted_rules(lab, family)[:2])
    lab.set_link("client", 2, up=True)
    default("add", here, 2000)
    wait_equal(lambda: (gateway(lab, family), rules(lab, family)), (here, wanted_rules(lab, family)))
    service.stop()
    wait_equal(lambda: routing(lab), before)


def test_real_router_advertisements(lab: Lab) -> None:
    """The router's default route, the address that the prefix gives, a router that goes and comes back."""
    lab.sysctl("client", net__ipv6__conf__eth1__accept_ra=1, net__ipv6__conf__eth1__autoconf=1)
    lab.ip("client", "-6", "route", "del", "default", "dev", "eth1")
    lab.service(configured(lab))
    assert gateway(lab, 6) == ""
    wait_for(lambda: link_local(lab, "net", "br2"), "the router has a link-local address")
    there = link_local(lab, "net", "br2")
    advertise(lab, 2, lifetime_s=1800, prefix=PREFIX)
    wait_equal(lambda: gateway(lab, 6), there)
    wait_for(lambda: made_from(lab, PREFIX), "the client has an address of the prefix")
    ip = made_from(lab, PREFIX)
    wait_equal(lambda: sorted(rules(lab, 6)), sorted([*wanted_rules(lab, 6), (32765, ip)]))
    (route,) = json.loads(lab.ip("client", "-j", "-6", "route", "get", SERVER[6], "from", ip))
    assert (route["dev"], route["gateway"]) == ("eth1", there)
    advertise(lab, 2, lifetime_s=0)
    wait_equal(lambda: gateway(lab, 6), "")
    assert (32765, ip) in rules(lab, 6)
    advertise(lab, 2, lifetime_s=1800)
    wait_equal(lambda: gateway(lab, 6), there)
    lab.ip("client", "addr", "del", f"{ip}/64", "dev", "eth1")
    wait_equal(lambda: rules(lab, 6), wanted_rules(lab, 6))


def made_from(lab: Lab, prefix: str) -> str:
    """The client's address of a prefix on link 2; "" for none."""
    shown = json.loads(lab.ip("client", "-j", "-6", "addr", "show", "dev", "eth1", "to", prefix))
    return next((a["local"] for found in shown for a in found.get("addr_info", ()) if "local" in a), "")


def test_what_a_killed_service_left_is_taken_over(lab: Lab) -> None:
    """The next one changes nothing of it, or removes it where it is not wanted any more, as a reload does."""
    before = routing(lab)
    service = lab.service(configured(lab))
    made = routing(lab)
    assert made != before
    lab.ip("client", "rule", "add", "from", "192.0.2.1", "table", "9", "pref", "32765")  # somebody else's
    left = routing(lab)
    service.kill()
    assert routing(lab) == left
    service.start()
    assert routing(lab) == left
    service.configure(configured(lab, source_routing=False))
    service.reload()
    lab.ip("client", "rule", "del", "from", "192.0.2.1", "table", "9", "pref", "32765")
    wait_equal(lambda: routing(lab), before)
    service.configure(configured(lab))
    service.reload()
    wait_equal(lambda: routing(lab), made)
    service.kill()
    service.configure(configured(lab, source_routing=False))
    service.start()
    assert routing(lab) == before


def test_a_vpn_goes_on(lab: Lab) -> None:
    """Rules as wg-quick makes them come first, whoever is first; a default route into a tunnel is obeyed."""
    lab.ip("client", "tuntap", "add", "wg0", "mode", "tun")
    lab.ip("client", "link", "set", "wg0", "up")
    lab.ip("client", "route", "add", "default", "dev", "wg0", "table", "51820")
    second = lab.address("client", 2)
    wg_quick = (["not", "fwmark", "51820", "table", "51820"], ["table", "main", "suppress_prefixlength", "0"])

    def change(verb: str) -> None:
        for rule in wg_quick:
            lab.ip("client", "rule", verb, *rule)

    def route(*mark: str) -> str:
        return lab.ip("client", "route", "get", SERVER[4], "from", second, *mark)

    change("add")
    service = lab.service(configured(lab))
    for _ in ("the VPN came first", "the service came first"):
        assert rules(lab, 4) == wanted_rules(lab, 4)
        assert "dev wg0" in route()
        assert "dev eth1" in route("mark", "51820")
        change("del")
        wait_for(route, "link 2 without the VPN", until=lambda found: "dev eth1" in found)
        change("add")
    change("del")
    lab.ip("client", "route", "add", "default", "dev", "wg0", "metric", "1")
    lab.ip("client", "route", "del", "default", "via", router(lab, 1, 4))
    wait_equal(lambda: rules(lab, 4), [])
    assert rules(lab, 6) == wanted_rules(lab, 6)
    service.stop()
