# SPDX-License-Identifier: Apache-2.0
"""Shared by the scenario tests: configurations, and the subflows the kernel really has."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from pm.linux.host.instance import namespace_file
from pm.linux.netlink.mptcp_pm import PathManagerSocket
from tests.lab.commands import run
from tests.lab.lab import STATE_DIRECTORY, Lab, cgroup2_root
from tests.lab.netns import inside
from tests.lab.oracle import Flow
from tests.lab.service import Service
from tests.lab.traffic import Traffic
from tests.lab.waiting import wait_equal, wait_for

SERVER = {4: "10.99.0.1", 6: "fd00:99::1"}  # see make_laptop
LINKS = {"addresses": {"include": ["eth*"]}}
# Also the second address of a subnet, which is not used by default.
ALL_ADDRESSES = {"addresses": {"include": ["eth*"], "all": True}}


def config(*policies: dict[str, Any], **top: Any) -> dict[str, Any]:
    return {**LINKS, **top, "policies": list(policies)}


def policy(lab: Lab, cgroup: str, path_manager: Any = "fullmesh", **fields: Any) -> dict[str, Any]:
    """A policy named after its cgroup inside the lab."""
    name = cgroup.replace("/", ".").replace("*", "any") or "lab"
    return {"name": name, "cgroup": lab.cgroup_path(cgroup), "path_manager": path_manager, **fields}


def pairs_of(lab: Lab, ports: set[int] | None = None, ns: str = "client") -> list[Counter[tuple[str, str]]]:
    """Established subflows per session as (local, remote) with multiplicity, sorted for comparing.

    ``ports``: only sessions whose initial subflow has one of these local ports.
    """
    found = []
    for flows in lab.subflows(ns).values():
        if ports is None or any(f.initial and f.local_port in ports for f in flows):
            found.append(Counter((f.local, f.remote) for f in flows if f.state == "ESTAB"))
    return sorted(found, key=lambda c: sorted(c.items()))


def wait_pairs(
    lab: Lab, want: list[tuple[str, str]], sessions: int = 1, ns: str = "client", deadline_s: float = 15.0
) -> None:
    """Wait until there are exactly ``sessions`` sessions, each with exactly these subflows."""
    expected = [Counter(want)] * sessions
    wait_equal(lambda: pairs_of(lab, ns=ns), expected, deadline_s=deadline_s)


def ports_of(client: Traffic) -> set[int]:
    """The local ports of a client's connections."""
    return {int(c["local"].split()[-1]) for c in client.report()}


def mesh(lab: Lab, family: int = 4, server_links: int = 1) -> list[tuple[str, str]]:
    """Every client address with the first ``server_links`` server addresses."""
    return [
        (a, b)
        for a in lab.addresses("client", family)
        for b in lab.addresses("server", family)[:server_links]
    ]


def wait_reported(
    service: Service, subflows: int, sessions: int = 1, **query: str | int
) -> list[dict[str, Any]]:
    """Wait until REST reports this many sessions with this many established subflows each."""

    def established(found: list[dict[str, Any]]) -> bool:
        counts = [sum(f["state"] == "established" for f in s["subflows"]) for s in found]
        return counts == [subflows] * sessions

    what = f"{sessions} sessions with {subflows} established subflows"
    return wait_for(lambda: service.sessions(**query), what, until=established)


def attached_programs(lab: Lab, cgroup: str, *, path_managers: bool = False) -> list[dict[str, Any]]:
    """The sock_ops programs on a cgroup of the lab, as bpftool lists them: path managers, or all others."""
    path = f"{cgroup2_root()}{lab.cgroup_path(cgroup)}"
    listed = json.loads(run("bpftool", "-j", "cgroup", "show", path).strip() or "[]")
    programs = [p for p in listed if p["attach_type"] in ("sock_ops", "cgroup_sock_ops")]
    return [p for p in programs if p["name"].startswith("path_manager") is path_managers]


def count_programs(lab: Lab, cgroup: str) -> tuple[int, int]:
    """(classifiers and options, path managers) on a cgroup of the lab."""
    others, path_managers = (attached_programs(lab, cgroup, path_managers=which) for which in (False, True))
    return len(others), len(path_managers)


def counter(lab: Lab, ns: str, name: str) -> int:
    """One of the kernel's MPTCP counters in a namespace (MPTcpExt...)."""
    for line in lab.run(ns, "nstat", "-asz", name).splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise AssertionError(f"no counter {name}")


def noted(lab: Lab, ns: str = "client") -> dict[str, Any]:
    """What the service in a namespace noted for the next start."""
    file = inside(lab.netns(ns), lambda: namespace_file(STATE_DIRECTORY, "notes"))
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def drop(lab: Lab, flow: Flow) -> None:
    """What a middlebox does that forgot a connection: packets with these ports vanish, both ways."""
    family = "-6" if ":" in flow.local else "-4"
    ends = (flow.local, flow.local_port, flow.remote, flow.remote_port)
    for source, sport, target, dport in (ends, (*ends[2:], *ends[:2])):
        lab.ip(
            *("net", family, "rule", "add", "pref", "5", "from", source, "to", target),
            *("ipproto", "tcp", "sport", str(sport), "dport", str(dport), "blackhole"),
        )


def make_laptop(lab: Lab) -> None:
    """Leave the client as DHCP does: a default route per link, told apart by their metrics, and no rules.

    The server has an address behind the router (SERVER), and link 1 does not carry what has the address of
    link 2.
    """
    for family, length in ((4, 32), (6, 128)):
        server, second = SERVER[family], lab.address("client", 2, family)
        lab.ip("server", "addr", "add", f"{server}/{length}", "dev", "lo")
        lab.ip("net", "route", "add", f"{server}/{length}", "via", lab.address("server", 1, family))
        for link in (1, 2):
            lab.ip("client", f"-{family}", "rule", "del", "from", lab.address("client", link, family))
        via = ("via", router(lab, 2, family), "dev", "eth1")
        lab.ip("client", "route", "add", "default", *via, "metric", "2000")
        lab.ip("net", f"-{family}", "rule", "add", "pref", "5", "from", second, "iif", "br1", "blackhole")


def router(lab: Lab, link: int, family: int) -> str:
    """The address of the router on a link."""
    shown = lab.ip("net", "-j", f"-{family}", "addr", "show", "dev", f"br{link}", "scope", "global")
    return str(next(address["local"] for found in json.loads(shown) for address in found["addr_info"]))


def wait_usable(service: Service, ip: str, *, usable: bool = True) -> None:
    """Wait until the service takes a local address for usable, or for not usable."""

    def is_usable() -> bool:
        found = service.get("/v1/addresses")["addresses"]
        return any(a["usable"] for a in found if a["ip"] == ip)

    wait_equal(is_usable, usable)


def blackhole(lab: Lab, *selector: str, family: int = 4) -> None:
    """Drop routed packets that match an ``ip rule`` selector, without a word to anybody."""
    lab.ip("net", f"-{family}", "rule", "add", "pref", "5", *selector, "blackhole")


def peer_path_manager(lab: Lab, ns: str = "server") -> PathManagerSocket:
    """Commands to the sessions of a namespace without a service; call before they are made."""
    lab.sysctl(ns, net__mptcp__pm_type=1)
    return inside(lab.netns(ns), PathManagerSocket.open)
