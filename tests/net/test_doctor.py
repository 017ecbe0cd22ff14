# SPDX-License-Identifier: Apache-2.0
"""``doctor`` on real interfaces, routes and sysctls: what it finds, and that its remedy helps."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.netns import inside
from tests.lab.scenarios import SERVER, make_laptop, router
from tests.lab.waiting import wait_for

Check = dict[str, Any]
MPTCP_PM = (sys.executable, "-m", "pm.cli.main")


def examine(lab: Lab, *options: str) -> dict[str, Check]:
    """The checks by name; all that is required is there."""
    found = json.loads(lab.run("client", *MPTCP_PM, "doctor", "--json", *options))["checks"]
    return {check["name"]: check for check in found}


def perform(lab: Lab, remedy: str, **words: str) -> None:
    """Run the first command of a remedy, with the words that it leaves open."""
    command = re.findall(r"`([^`]+)`", remedy)[0]
    for word, meant in words.items():
        command = command.replace(word, meant)
    if command.startswith("--sysctl"):  # in a container, the engine sets it
        command = command.replace("--sysctl", "sysctl -w")
    lab.run("client", *command.split())


def test_a_host_with_two_paths(lab: Lab) -> None:
    """As the guides set it up: nothing is left to do."""
    for family in (4, 6):
        for link, rule in enumerate(("100", "200"), 1):
            via = ("via", router(lab, link, family), "dev", f"eth{link - 1}", "table", rule)
            lab.ip("client", "route", "replace", "default", *via)
            address = lab.address("client", link, family)
            lab.ip("client", f"-{family}", "rule", "add", "from", address, "table", rule)
    checks = examine(lab)
    about_paths = {name: check for name, check in checks.items() if ":" in name or name == "interfaces"}
    assert [check for check in about_paths.values() if not check["ok"]] == []
    assert sorted(name for name in about_paths if not name.startswith("source_route")) == [
        "carrier:eth0", "carrier:eth1", "interfaces", "mtu:eth0", "mtu:eth1",
        "rp_filter:eth0", "rp_filter:eth1",
    ]  # fmt: skip
    for family in (4, 6):
        for link in (1, 2):
            found = about_paths[f"source_route:{lab.address('client', link, family)}"]["found"]
            assert found == f"packets from it leave by eth{link - 1}"


def test_strict_rp_filter_where_routes_lead_elsewhere(lab: Lab) -> None:
    """As DHCP leaves a laptop: subflows are bound, and strict filtering drops the answers."""
    make_laptop(lab)
    second = lab.address("client", 2)
    checks = examine(lab)
    bound = "packets from it leave by eth0: subflows are bound to eth1 (addresses.bind_interface)"
    assert (checks[f"source_route:{second}"]["ok"], checks[f"source_route:{second}"]["found"]) == (
        True,
        bound,
    )
    assert checks["rp_filter:eth1"]["ok"]
    lab.sysctl("client", net__ipv4__conf__all__rp_filter=1)
    checks = examine(lab)
    assert [checks[f"rp_filter:eth{i}"]["ok"] for i in (0, 1)] == [True, False]
    assert checks["rp_filter:eth1"]["found"].startswith("strict (all: 1, eth1: 0): what comes back")
    perform(lab, checks["rp_filter:eth1"]["remedy"])
    assert examine(lab)["rp_filter:eth1"]["ok"]


@pytest.mark.parametrize("family", [4, 6])
def test_a_link_without_a_default_route(lab: Lab, family: int) -> None:
    """Only its own link is reached from there; the command of the remedy helps, with the router's address."""
    make_laptop(lab)
    lab.ip("client", f"-{family}", "route", "del", "default", "dev", "eth1")
    second = f"source_route:{lab.address('client', 2, family)}"
    check = examine(lab)[second]
    assert not check["ok"]
    assert not check["required"]
    assert "packets from it leave by eth0, and eth1 has no route to" in check["found"]
    perform(lab, check["remedy"], ROUTER=router(lab, 2, family))
    assert examine(lab)[second]["ok"]


def test_a_vpn_that_takes_everything(lab: Lab) -> None:
    """Subflows do not bypass it, and it is no path of its own."""
    make_laptop(lab)
    lab.ip("client", "tuntap", "add", "dev", "vpn", "mode", "tun")
    lab.ip("client", "addr", "add", "10.8.0.1/24", "dev", "vpn")
    lab.ip("client", "link", "set", "vpn", "up")
    for half in ("0.0.0.0/1", "128.0.0.0/1"):
        lab.ip("client", "route", "add", half, "dev", "vpn")
    checks = examine(lab, "--to", SERVER[4])
    for ip in lab.addresses("client"):
        check = checks[f"source_route:{ip}"]
        assert not check["ok"]
        assert check["found"] == "packets from it go into the tunnel vpn, which subflows do not bypass"
    assert not any(name.endswith((":vpn", ":10.8.0.1")) for name in checks)


def test_the_route_to_one_peer(lab: Lab) -> None:
    """``--to`` looks that peer up, of whose family no other address is."""
    make_laptop(lab)
    first, second = lab.addresses("client")
    lab.ip("client", "rule", "add", "from", second, "to", SERVER[4], "prohibit")
    checks = examine(lab, "--to", SERVER[4])
    names = [name for name in checks if name.startswith("source_route:")]
    assert names == [f"source_route:{first}", f"source_route:{second}"]
    assert f"no route from it to {SERVER[4]} (EACCES)" in checks[names[1]]["found"]


def test_interfaces_and_sysctls(lab: Lab) -> None:
    """A cable that is not plugged in, an MTU too small for IPv6, syncookies; the advice on the C flag."""
    lab.set_link("client", 2, up=False)
    lab.ip("client", "link", "set", "eth0", "mtu", "1000")
    lab.sysctl("client", net__ipv4__tcp_syncookies=2, net__mptcp__allow_join_initial_addr_port=0)
    wait_for(lambda: not examine(lab)["carrier:eth1"]["ok"], "the link is seen to be down")
    checks = examine(lab)
    assert checks["carrier:eth1"]["found"] == "interface has no carrier"
    assert "mtu:eth1" not in checks
    assert (checks["mtu:eth0"]["ok"], checks["mtu:eth0"]["found"]) == (False, "1000 bytes")
    assert (checks["interfaces"]["ok"], checks["interfaces"]["found"]) == (
        False,
        "with usable addresses: eth0",
    )
    assert "load balancer" in checks["join_initial_address"]["remedy"]
    perform(lab, checks["syncookies"]["remedy"])
    perform(lab, checks["mtu:eth0"]["remedy"])
    checks = examine(lab)
    assert checks["syncookies"]["ok"]
    assert checks["mtu:eth0"]["ok"]


def test_endpoints_of_the_kernel(lab: Lab) -> None:
    """They are shown, with what becomes of them; nothing is wrong about them."""
    lab.ip("client", "mptcp", "endpoint", "flush")
    assert examine(lab)["kernel_endpoints"]["found"] == "none"
    second = lab.address("client", 2)
    lab.ip("client", "mptcp", "endpoint", "add", second, "dev", "eth1", "subflow", "backup")
    check = examine(lab)["kernel_endpoints"]
    assert check["ok"]
    assert check["found"].startswith(f"{second} subflow backup: sessions that no policy owns")


def test_a_middlebox_that_drops_syns_with_mptcp(lab: Lab) -> None:
    """The kernel opens plain TCP connections then, until the remedy is performed."""
    lab.server()
    drop = ("INPUT", "-p", "tcp", "--tcp-flags", "SYN,ACK", "SYN", "--tcp-option", "30", "-j", "DROP")
    lab.run("server", "iptables", "-A", *drop)
    client = lab.client()
    assert examine(lab)["blackhole"]["ok"]
    client.open()
    lab.run("server", "iptables", "-D", *drop)
    check = examine(lab)["blackhole"]
    assert (check["ok"], check["required"]) == (False, False)
    assert check["found"].startswith("detected 1 times since boot")
    assert not _is_mptcp(lab)
    perform(lab, check["remedy"])
    assert _is_mptcp(lab)


def _is_mptcp(lab: Lab) -> bool:
    """Whether a SYN of the client has MPTCP now."""
    count = "MPTcpExtMPCapableSYNTX"
    before = inside(lab.netns("client"), lambda: _counter(lab, count))
    lab.client().open()
    return inside(lab.netns("client"), lambda: _counter(lab, count)) > before


def _counter(lab: Lab, name: str) -> int:
    shown = json.loads(lab.run("client", "nstat", "-asz", "--json", name))
    return int(shown["kernel"][name])


def test_what_is_no_address_is_one_line(lab: Lab) -> None:
    """Exit status 1."""
    process = lab.popen([*MPTCP_PM, "doctor", "--to", "foo"], stderr=-1, stdout=-1, text=True)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert err == "mptcp-pm: 'foo' is not an IP address: write 192.0.2.1, or 2001:db8::1\n"
