# SPDX-License-Identifier: Apache-2.0
"""How options get to the peer: lost packets, no space, silence; what the application set stays."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_uint32, c_uint64
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pm.linux.bpf import libbpf
from pm.linux.bpf.objects import SOURCES, compile_object
from pm.linux.bpf.tcp_option_layouts import BUILT_IN
from pm.linux.host.cgroups import directory_of, find_cgroup_root
from tests.lab.lab import Lab
from tests.lab.service import Service
from tests.lab.sock_ops import PROGRAMS, link
from tests.lab.tcp_options import ACCEPT, ASKED, SEND, USUAL, Connection, events, start, with_options
from tests.lab.waiting import wait_for

UTO = {"user_timeout": SEND["user_timeout"]}
WORDS_WITH_UTO = 9  # of the TCP header: 20 bytes, timestamps, the option
AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()


@pytest.fixture
def lab(make_lab: Any) -> Lab:
    lab: Lab = make_lab(client=2, server=1)
    for cgroup in ("client", "server"):
        lab.cgroup(cgroup)
    return lab


@pytest.mark.parametrize("family", [4, 6])
def test_lost_packets(lab: Lab, family: int) -> None:
    """The handshake's last packet and data with the option are lost: it is sent again until it arrives."""
    client, _ = start(lab, {"client": UTO}, {"server": ACCEPT})
    connection = Connection(lab, family=family)
    connection.server.do("drop", words=WORDS_WITH_UTO)
    connection.client.do("open")
    connection.client.do("send", bytes=100)
    wait_for(lambda: events(client, "user_timeout").get("sent", 0) >= 3, "the option sent three times")
    connection.server.do("drop", words=0)
    connection.server.do("open")
    connection.server.do("receive", bytes=100)
    assert connection.server.get()["user_timeout"] == 30_000
    connection.__exit__()


def test_silent_once_acknowledged(lab: Lab) -> None:
    """After the peer acknowledged data that carried it, no packet carries the option any more."""
    client, server = start(lab, {"client": UTO}, {"server": ACCEPT})
    with Connection(lab) as connection:
        connection.exchange()
        connection.exchange()
        before = events(client, "user_timeout")
        for _ in range(20):
            connection.exchange()
        assert events(client, "user_timeout") == before
        assert before["sent"] <= 3
        assert events(server, "user_timeout")["applied"] == 1


def test_gives_up(lab: Lab) -> None:
    """A peer that never acknowledges data, since there is none, gets 32 copies and no more."""
    client, _ = start(lab, {"client": UTO}, {"server": ACCEPT})
    with Connection(lab) as connection:
        for _ in range(60):
            connection.server.do("send", bytes=20_000)
            connection.client.do("receive", bytes=20_000)
        counted = events(client, "user_timeout")
        assert counted["sent"] == 32
        assert counted["unconfirmed"] == 1


def test_no_space(lab: Lab) -> None:
    """Where two options do not fit beside the timestamps they take turns; what had no room is counted."""
    shutil.copy(PROGRAMS / "filler.c", lab.directory)
    text = (PROGRAMS / "filler.c").read_text()
    (lab.directory / "second.c").write_text(text.replace("filler", "second"))
    plugins = [
        {"name": name, "source": str(lab.directory / f"{name}.c"), "exid": exid, "send": True, "accept": True}
        for name, exid in (("filler", 1), ("second", 2))
    ]
    client, _ = start(lab, {"client": {"plugins": plugins}}, {"server": {"plugins": plugins}})
    with Connection(lab) as connection:
        connection.exchange()
        connection.exchange()
        reports = connection.server.reports((*BUILT_IN, "filler", "second"))
        assert {name: r.applied for name, r in reports.items()} == {"filler": 1, "second": 1}
        connection.exchange()
    assert events(client, "second")["no_space"] >= 1


def test_no_space_in_a_join(lab: Lab) -> None:
    """The last packet of a join's handshake has 4 bytes left: the option waits, nothing breaks."""
    client = lab.service(
        {
            **with_options(lab, {"client": {"initial_window": SEND["initial_window"]}}),
            "policies": [
                {
                    "name": "client",
                    "cgroup": lab.cgroup_path("client"),
                    "path_manager": "fullmesh",
                    "options": {"initial_window": {"request": 20}},
                }
            ],
        }
    )
    lab.service(with_options(lab, {"server": ACCEPT}), ns="server")
    with Connection(lab, mptcp=True) as connection:
        connection.exchange()
        lab.wait_subflows(2)
        wait_for(lambda: events(client, "initial_window").get("no_space"), "an option without room")
        for _ in range(10):
            connection.exchange(answer=20_000)


def test_with_and_without_timestamps_and_sack(lab: Lab) -> None:
    """Options do not depend on what else the header carries."""
    start(lab, {"client": SEND}, {"server": ACCEPT})
    for timestamps, sack in product((0, 1), (0, 1)):
        lab.sysctl("client", net__ipv4__tcp_timestamps=timestamps, net__ipv4__tcp_sack=sack)
        with Connection(lab) as connection:
            connection.exchange()
            connection.exchange()
            got = connection.server.get()
            assert (got["user_timeout"], got["congestion"]) == (30_000, ASKED)


def test_application_keeps_its_settings(lab: Lab) -> None:
    """What the server's application set is not changed, and the refusal is counted."""
    own = next(name for name in AVAILABLE if name != USUAL)
    start(lab, {"client": SEND}, {"server": ACCEPT})
    with Connection(lab, server=("--user-timeout", "7000", "--congestion", own)) as connection:
        connection.exchange()
        connection.exchange()
        got, reports = connection.server.get(), connection.server.reports()
        assert (got["user_timeout"], got["congestion"]) == (7000, own)
        assert reports["user_timeout"].refused == "application"
        assert reports["congestion_control"].refused == "application"


def test_applications_own_timeout_is_told(lab: Lab) -> None:
    """What the client's application set itself is what its peer hears, not the policy's."""
    start(lab, {"client": UTO}, {"server": ACCEPT})
    with Connection(lab, client=("--user-timeout", "9000")) as connection:
        connection.exchange()
        assert connection.client.get()["user_timeout"] == 9000
        assert connection.server.get()["user_timeout"] == 9000


def test_timeout_of_the_advertiser(lab: Lab) -> None:
    """Who advertises a timeout keeps to it; one with limits takes the longer of its own and the peer's."""
    both = {"user_timeout": {"advertise": "60s", "accept": {"min": "5s", "max": "50s"}}}
    start(lab, {"client": UTO}, {"server": both})
    with Connection(lab) as connection:
        connection.exchange()
        assert connection.client.get()["user_timeout"] == 30_000
        assert connection.server.get()["user_timeout"] == 50_000


@pytest.mark.parametrize("family", [4, 6])
def test_initial_window_by_destination(lab: Lab, family: int) -> None:
    """A rule sets this end's own window, the longest prefix wins, and nothing is on the wire."""
    prefixes = {4: ("10.0.0.0/8", "10.77.1.2/32"), 6: ("fd00::/16", "fd00:77:1::2/128")}[family]
    rules = [{"to": to, "segments": n} for to, n in zip(prefixes, (15, 25), strict=True)]
    client, _ = start(lab, {"client": {"initial_window": {"rules": rules}}}, {"server": ACCEPT})
    with Connection(lab, family=family) as connection:
        assert connection.client.get()["cwnd"] == 25
        connection.exchange()
        assert connection.server.reports() == {}
        assert events(client, "initial_window") == {"applied": 1}


@contextmanager
def foreign(lab: Lab, entry: str, cgroup: str) -> Iterator[int]:
    """Somebody else's program on a cgroup; the descriptor of its counter of calls."""
    for name in ("stub", "include"):
        shutil.copytree(SOURCES / name, lab.directory / name, dirs_exist_ok=True)
    shutil.copy(PROGRAMS / "foreign_flags.c", lab.directory)
    log = lab.directory / "foreign.log"
    program = asyncio.run(compile_object(lab.directory / "foreign_flags.c", log_file=log))
    counter = libbpf.create_map("calls", program.maps["calls"][1])
    loaded = program.load(entry, maps={"calls": counter}, constants={}, log_file=log)
    attached = link(loaded, directory_of(find_cgroup_root(), lab.cgroup(cgroup)))
    try:
        yield counter
    finally:
        for fd in (attached, loaded, counter):
            os.close(fd)


@pytest.mark.parametrize("entry", ["watches", "asks"])
def test_callback_flags(lab: Lab, entry: str) -> None:
    """Silent, ours has given back its own flags: no program is called. Those of others stay."""
    start(lab, {"client": UTO}, {"server": ACCEPT})
    with foreign(lab, entry, "client/inner") as counter, Connection(lab, "client/inner") as connection:

        def called() -> int:
            calls = c_uint64()
            libbpf.lookup(counter, c_uint32(0), calls)
            return calls.value

        for _ in range(3):
            connection.exchange()
        before = called()
        assert before
        for _ in range(5):
            connection.exchange()
        assert (called() > before) == (entry == "asks")


def test_service_counts_nothing_without_traffic(lab: Lab) -> None:
    """Counters start at zero, one per event of each plugin."""
    service: Service = lab.service(with_options(lab, {"client": SEND}))
    counted = service.get("/v1/status")["options"]
    assert set(counted) == set(BUILT_IN)
    assert not any(count for events_ in counted.values() for count in events_.values())
