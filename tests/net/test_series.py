# SPDX-License-Identifier: Apache-2.0
"""Interfaces and figures of the last minutes, of real sessions."""

from __future__ import annotations

import re
from functools import partial
from itertools import pairwise
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.lab.lab import Lab
from tests.lab.scenarios import config, policy
from tests.lab.service import Service
from tests.lab.traffic import Traffic
from tests.lab.waiting import wait_equal, wait_for

MIB = 1 << 20


def interfaces(service: Service) -> dict[str, Any]:
    return {found["name"]: found for found in service.get("/v1/interfaces")["interfaces"]}


def received(lab: Lab, local: str) -> int:
    """Bytes that came on the open sockets with a local address, as `ss` shows them."""
    shown = lab.run("client", "ss", "-tniOH", "state", "established", "src", local)
    return sum(int(number) for number in re.findall(r"bytes_received:(\d+)", shown))


def two_paths(lab: Lab) -> tuple[Service, Traffic]:
    """A session of the policy `a` with a subflow on each of two links."""
    service = lab.service(config(policy(lab, "a")))
    lab.server()
    client = lab.client(cgroup="a")
    client.open(1)
    wait_for(
        lambda: [len(s["subflows"]) for s in service.get("/v1/sessions")["sessions"]],
        "two subflows",
        until=lambda found: found == [2],
    )
    return service, client


def test_interfaces_carry_what_the_kernel_counts(lab: Lab) -> None:
    """Both have a part of it, and what came and went is the sum of what `ss` shows."""
    service, client = two_paths(lab)
    interfaces(service)  # the first look begins
    client.send(bytes=MIB, deadline_s=60)
    found = wait_for(
        lambda: interfaces(service),
        "rates after two samples",
        until=lambda found: (
            found["eth0"]["sent_per_second"] is not None
            and sum(found[name]["bytes_sent"] for name in ("eth0", "eth1")) >= MIB
        ),
    )
    (session,) = service.get("/v1/sessions")["sessions"]
    by_interface = {"eth0": 0, "eth1": 0}
    for subflow in session["subflows"]:
        name = "eth0" if subflow["local"]["ip"] == lab.address("client", 1) else "eth1"
        by_interface[name] += subflow["bytes_received"]
    for name, bytes_received in by_interface.items():
        assert found[name]["state"] == "up"
        assert found[name]["used"]
        assert found[name]["reason"] is None
        assert (found[name]["sessions"], found[name]["subflows"]) == (1, 1)
        assert found[name]["bytes_received"] == bytes_received
        assert found[name]["rtt"] > 0


def test_series_show_a_transfer(lab: Lab) -> None:
    """Over all its seconds a series has what was sent: interfaces, policy and subflows show the same."""
    service, client = two_paths(lab)
    token = service.get("/v1/sessions")["sessions"][0]["token"]
    paths = ["/v1/interfaces/eth0/series", "/v1/interfaces/eth1/series", "/v1/policies/a/series"]
    paths.append(f"/v1/sessions/{token}/series")

    def carried_by(paths: list[str]) -> float:
        return sum(map(carried, paths))

    def carried(path: str) -> float:
        """Bytes that a series has, of all interfaces or subflows."""
        document = service.get(path)
        times = document["times"]
        gaps = [0.0, *(after - before for before, after in pairwise(times))]
        return float(
            sum(
                value * gap
                for series in document["series"]
                if series["name"] == "sent_per_second"
                for value, gap in zip(series["values"], gaps, strict=True)
                if value is not None
            )
        )

    wait_for(
        lambda: len(service.get(paths[0])["times"]),
        "two samples",
        until=lambda number: number >= 2,
    )
    client.send(bytes=MIB, deadline_s=60)
    for what in (paths[:2], paths[2:3], paths[3:]):
        # Rates and times are rounded.
        wait_for(partial(carried_by, what), "the transfer", until=lambda sent: 0.99 * MIB < sent < 1.1 * MIB)
    subflows = {series["labels"]["subflow"] for series in service.get(paths[3])["series"]}
    assert subflows == {s["id"] for s in service.get("/v1/sessions")["sessions"][0]["subflows"]}


def test_an_interface_without_carrier_or_gone(lab: Lab) -> None:
    """Its state and why it is not used are shown, and what it has carried stays."""
    service, client = two_paths(lab)
    client.send(bytes=MIB, deadline_s=60)
    wait_for(lambda: interfaces(service)["eth1"]["bytes_received"], "bytes of link 2")
    lab.set_link("client", 2, False)
    found = wait_for(
        lambda: interfaces(service)["eth1"],
        "link 2 has no carrier",
        until=lambda found: found["state"] == "no carrier",
    )
    assert not found["used"]
    assert found["reason"] == "interface has no carrier"
    lab.ip("client", "link", "del", "eth1")
    found = wait_for(
        lambda: interfaces(service)["eth1"], "link 2 is gone", until=lambda found: found["state"] == "gone"
    )
    assert found["bytes_received"] > 0
    assert (found["index"], found["reason"]) == (0, "the interface is gone")


def test_what_is_not_there(lab: Lab) -> None:
    """Unknown names are problems with status 404."""
    service = lab.service(config(policy(lab, "a")))
    for path in ("interfaces/eth9", "policies/b", "sessions/0x12345678", "interfaces/%3Cimg%3E"):
        assert service.request("GET", f"/v1/{path}/series")[0] == 404


def test_interfaces_that_change_their_names(lab: Lab) -> None:
    """What each has carried, its series and its sessions go with it: first renamed, then swapped."""
    service, client = two_paths(lab)
    client.send(bytes=MIB, deadline_s=60)
    eth0, eth1 = (lab.address("client", link) for link in (1, 2))

    def by_address() -> dict[str, tuple[str, int]]:
        """Name, and bytes received, of the interface of each address."""
        found = interfaces(service).values()
        return {ip: (one["name"], one["bytes_received"]) for one in found for ip in one["addresses"]}

    def wait_names(first: str, second: str) -> None:
        wait_for(
            lambda: {ip: name for ip, (name, _) in by_address().items()},
            "the new names",
            until=lambda names: (names.get(eth0), names.get(eth1)) == (first, second),
        )

    wait_for(lambda: interfaces(service)["eth1"]["sent_per_second"], "samples", until=lambda r: r is not None)
    before = by_address()
    for old, new in (("eth1", "eth9"), ("eth0", "eth8")):
        lab.ip("client", "link", "set", "dev", old, "name", new)
    wait_names("eth8", "eth9")
    for old, new in (("eth8", "eth7"), ("eth9", "eth8"), ("eth7", "eth9")):
        lab.ip("client", "link", "set", "dev", old, "name", new)
    wait_names("eth9", "eth8")
    after = by_address()
    assert [after[ip][1] for ip in (eth0, eth1)] == [before[ip][1] for ip in (eth0, eth1)]
    client.send(bytes=MIB, deadline_s=60)
    (session,) = service.get("/v1/sessions")["sessions"]
    received = {s["local"]["ip"]: s["bytes_received"] for s in session["subflows"]}
    wait_for(
        lambda: {ip: number for ip, (_, number) in by_address().items()},
        "what ss shows",
        until=lambda found: all(found[ip] == number for ip, number in received.items()),
    )
    wait_equal(lambda: sorted(interfaces(service)), ["eth8", "eth9", "lo"])  # counts are a second old
    for name in ("eth8", "eth9"):
        series = service.get(f"/v1/interfaces/{name}/series")["series"]
        (subflows,) = (one["values"] for one in series if one["name"] == "subflows")
        assert set(subflows) <= {1, None}
        assert subflows[-1] == 1


def test_an_interface_that_is_made_anew(lab: Lab) -> None:
    """It has the name and the address of one that was deleted, and what it carries itself."""
    service, client = two_paths(lab)
    client.send(bytes=MIB, deadline_s=60)
    former = wait_for(
        lambda: interfaces(service)["eth1"],
        "what eth1 has carried",
        until=lambda found: found["bytes_sent"] and found["sent_per_second"] is not None,
    )
    lab.ip("client", "link", "del", "eth1")
    wait_for(lambda: interfaces(service)["eth1"]["state"], "eth1 is gone", until=lambda s: s == "gone")
    wait_equal(lambda: len(service.get("/v1/sessions")["sessions"][0]["subflows"]), 1)
    gone = interfaces(service)["eth1"]
    assert gone["bytes_sent"] >= former["bytes_sent"]
    lab.ip("net", "link", "add", "client2", "type", "veth", "peer", "eth1", "netns", lab.netns("client"))
    lab.ip("net", "link", "set", "client2", "master", "br2", "up")
    lab.ip("client", "link", "set", "eth1", "up")
    found = wait_for(
        lambda: interfaces(service), "the former one has another name", until=lambda f: "eth1 (gone)" in f
    )
    assert found["eth1 (gone)"]["bytes_sent"] - gone["bytes_sent"] in (0, 1)
    lab.ip("client", "rule", "del", "from", lab.address("client", 2))
    lab.add_address("client", 2, lab.address("client", 2))
    lab.wait_subflows(2)
    client.send(bytes=MIB, deadline_s=60)
    wait_equal(lambda: interfaces(service)["eth1"]["bytes_received"], received(lab, lab.address("client", 2)))
    found = wait_for(
        lambda: interfaces(service),
        "no subflow over the one that is gone",  # counts are a second old
        until=lambda found: found["eth1 (gone)"]["subflows"] == 0,
    )
    assert found["eth1"]["index"] != former["index"]
    assert found["eth1 (gone)"]["bytes_sent"] - gone["bytes_sent"] in (0, 1)  # its FIN
    assert found["eth1 (gone)"]["state"] == "gone"
    assert "(gone)" not in service.get("/metrics")  # a counter goes with the name
    series = service.get("/v1/interfaces/eth1/series")["series"]
    (subflows,) = (one["values"] for one in series if one["name"] == "subflows")
    assert subflows[0] is None  # of a time when there was another


def test_an_interface_with_the_index_of_one_that_is_gone(lab: Lab) -> None:
    """It is another one, from the first moment on."""
    service, client = two_paths(lab)
    client.send(bytes=MIB, deadline_s=60)
    former = wait_for(
        lambda: interfaces(service)["eth1"], "bytes of eth1", until=lambda found: found["bytes_sent"] > 0
    )
    lab.ip("client", "link", "del", "eth1")
    lab.ip("client", "link", "add", "wan", "index", str(former["index"]), "type", "veth")
    lab.ip("client", "addr", "add", "192.0.2.1/24", "dev", "wan")
    found = wait_for(lambda: interfaces(service), "the new one", until=lambda found: "wan" in found)
    assert found["wan"]["index"] == former["index"]
    assert found["wan"]["bytes_sent"] == 0
    assert found["eth1"]["state"] == "gone"
    assert found["eth1"]["bytes_sent"] >= former["bytes_sent"]


def test_metrics_by_interface(lab: Lab) -> None:
    """A scrape has what was carried until now, and the kernel's own counters."""
    service, client = two_paths(lab)
    client.send(bytes=MIB, deadline_s=60)

    def scrape() -> dict[tuple[str, str], float]:
        families = text_string_to_metric_families(service.get("/metrics"))
        return {
            (sample.name, sample.labels.get("interface", sample.labels.get("counter", ""))): sample.value
            for family in families
            for sample in family.samples
        }

    found = wait_for(
        scrape,
        "what was sent",
        until=lambda found: (
            sum(found.get(("mptcp_pm_sent_bytes_total", f"eth{n}"), 0) for n in (0, 1)) >= MIB
        ),
    )
    counters = dict(
        line.split()[:2] for line in lab.run("client", "nstat", "-asz").splitlines() if "MPTcp" in line
    )
    mine = {
        name: value for (metric, name), value in found.items() if metric == "mptcp_pm_kernel_events_total"
    }
    assert mine.keys() == {name.removeprefix("MPTcpExt") for name in counters} - {"MPCurrEstab"}
    assert mine["MPJoinSynTx"] == int(counters["MPTcpExtMPJoinSynTx"])
    assert found["mptcp_pm_kernel_sessions", ""] == 1
