# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pm.api.kernel_metrics import COUNTERS_MAX
from pm.api.listing import Census
from pm.api.metrics import Histogram, Snapshot, Timings, exposition
from pm.api.traffic_metrics import traffic_metrics
from pm.errors import Problem
from pm.interfaces import UNKNOWN, Interface
from pm.sessions.ledger import Account
from pm.sessions.session import JOIN_RESULTS, FailureKind
from pm.sessions.traffic import Traffic
from tests.unit.api.plane import Plane

ETH0 = Interface("eth0")
CARRIED = {Account("sync", ETH0): Traffic(100, 200, 3), Account(None, ETH0): Traffic(1, 2, 0)}
KERNEL = {
    "MPTcpExtMPJoinSynRx": 7,
    "MPTcpExtMPCurrEstab": 4,
    "MPTcpExtDssFallback": 4,
    "MPTcpExtBlackhole": 1,
    "TcpExtIPReversePathFilter": 1,
}


def samples(
    plane: Plane,
    timings: Timings,
    *,
    carried: Mapping[Account, Traffic] = CARRIED,
    kernel: Mapping[str, int] = KERNEL,
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    snapshot = Snapshot(
        status=plane.status(),
        census=Census(
            Counter({("sync", "established"): 2, (None, "created"): 1}),
            Counter({("sync", ETH0, "established"): 5, (None, UNKNOWN, "failed"): 2}),
            Counter({ETH0: 3}),
            {ETH0: [1000, 3000, 2000]},
            Counter({("sync", ETH0): 1}),
        ),
        policies=[policy.name for policy in plane.policies()],
        timings=timings,
        options={"user_timeout": {"sent": 4, "malformed": 1}},
        carried=carried,
        kernel=kernel,
    )
    text = exposition(snapshot).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_exposition_shows_sessions_actions_and_reloads() -> None:
    """Every figure of the service appears under its name and labels; a session of no policy has ""."""
    found = samples(Plane(), Timings())
    assert found["mptcp_pm_sessions", (("policy", "sync"), ("state", "established"))] == 2
    assert found["mptcp_pm_sessions", (("policy", ""), ("state", "created"))] == 1
    labels = (("interface", "eth0"), ("policy", "sync"))
    assert found["mptcp_pm_subflows", (*labels, ("state", "established"))] == 5
    assert found["mptcp_pm_subflows", (("interface", ""), ("policy", ""), ("state", "failed"))] == 2
    assert found["mptcp_pm_sent_bytes_total", labels] == 100
    assert found["mptcp_pm_received_bytes_total", labels] == 200
    assert found["mptcp_pm_retransmitted_segments_total", labels] == 3
    assert found["mptcp_pm_rtt_seconds", (("interface", "eth0"),)] == 0.002
    assert found["mptcp_pm_rtt_max_seconds", (("interface", "eth0"),)] == 0.003
    assert found["mptcp_pm_stuck_subflows", labels] == 1
    assert found["mptcp_pm_interface_sessions", (("interface", "eth0"),)] == 3
    assert found["mptcp_pm_kernel_events_total", (("counter", "MPJoinSynRx"),)] == 7
    assert found["mptcp_pm_kernel_sessions", ()] == 4
    assert not any("MPCurrEstab" in str(labels) or "Reverse" in str(labels) for _, labels in found)
    assert found["mptcp_pm_joins_total", (("result", "unanswered"),)] == 0
    assert found["mptcp_pm_actions_total", (("kind", "open"), ("outcome", "ok"))] == 3
    assert found["mptcp_pm_actions_total", (("kind", "open"), ("outcome", "refused"))] == 1
    assert found["mptcp_pm_config_reloads_total", (("outcome", "ok"),)] == 2
    assert found["mptcp_pm_events_total", ()] == 12
    assert found["mptcp_pm_events_lost_total", ()] == 0
    assert found["mptcp_pm_config_last_reload_successful", ()] == 1


def test_what_has_no_sessions_has_none() -> None:
    """0, and not nothing: a graph falls to it, an alert can compare it, and a dashboard has its name."""
    found = samples(Plane(), Timings())
    assert found["mptcp_pm_sessions", (("policy", "rest"), ("state", "established"))] == 0
    assert found["mptcp_pm_sessions", (("policy", ""), ("state", "established"))] == 0


def test_subflows_that_have_ended_leave_none() -> None:
    """Where something was carried, the number of subflows falls to 0."""
    carried = {Account("sync", ETH0): Traffic(1, 2, 3), Account("sync", Interface("eth1")): Traffic(1, 2, 3)}
    subflows: Counter[tuple[str | None, Interface, str]] = Counter({("sync", ETH0, "established"): 2})
    census = Census(Counter(), subflows, Counter(), {}, Counter())
    found = {family.name: family.samples for family in traffic_metrics(census, carried)}
    for name, values in (("mptcp_pm_subflows", [2, 0]), ("mptcp_pm_stuck_subflows", [0, 0])):
        assert [(s.labels["interface"], s.value) for s in found[name]] == [
            ("eth0", values[0]), ("eth1", values[1]),
        ]  # fmt: skip


def test_failed_reload_shows() -> None:
    """The gauge falls to 0 while the file is bad."""
    plane = Plane(bad_config=(Problem("f", 1, "a", "b"),))
    assert samples(plane, Timings())["mptcp_pm_config_last_reload_successful", ()] == 0


def test_histogram_counts_up_to_and_including_its_bounds() -> None:
    """Buckets are cumulative; a value on a bound belongs to it, one above all to +Inf."""
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value)
    assert histogram.buckets() == [("0.1", 2.0), ("1.0", 3.0), ("+Inf", 4.0)]
    timings = Timings()
    timings.join_delay = histogram
    assert samples(Plane(), timings)["mptcp_pm_join_delay_seconds_count", ()] == 4


def test_path_managers_are_told_apart() -> None:
    """How long each of them takes, by name."""
    timings = Timings()
    timings.observe_answer("slow", 2.0)
    timings.observe_answer("fast", 0.00002)
    found = samples(Plane(), timings)
    bucket = "mptcp_pm_path_manager_seconds_bucket"
    assert found[bucket, (("le", "1.0"), ("path_manager", "slow"))] == 0
    assert found[bucket, (("le", "0.0001"), ("path_manager", "fast"))] == 1


def test_documentation_has_every_metric() -> None:
    """docs/api.md lists the metrics that are exposed, by their names."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()
    timings = Timings()
    timings.observe_answer("none", 0.1)
    found = {re.sub("_(bucket|sum|count)$", "", name) for name, _ in samples(Plane(), timings)}
    assert set(re.findall(r"`(mptcp_pm_\w+)`", text)) == found


def test_too_many_interfaces_are_added_up() -> None:
    """Interfaces come and go with names of their own: a scrape has a bounded number of them."""
    carried = {Account("sync", Interface(f"veth{n}")): Traffic(1, 2, 3) for n in range(300)}
    late = Interface("late")
    subflows: Counter[tuple[str | None, Interface, str]] = Counter({("sync", late, "established"): 1})
    census = Census(Counter(), subflows, Counter(), {late: [5]}, Counter({("sync", late): 1}))
    found = {family.name: family for family in traffic_metrics(census, carried)}
    sent = {sample.labels["interface"]: sample.value for sample in found["mptcp_pm_sent_bytes"].samples}
    assert len(sent) == 257
    assert sent["others"] == 44
    for name in ("mptcp_pm_subflows", "mptcp_pm_stuck_subflows", "mptcp_pm_rtt_seconds"):
        assert [s.labels["interface"] for s in found[name].samples if s.value] == ["others"]
        assert len(found[name].samples) <= 257


def test_label_values_are_escaped() -> None:
    """An interface may have any name that the kernel takes."""
    name = 'e"\\\n<x>\ufffdff'
    found = samples(Plane(), Timings(), carried={Account("sync", Interface(name)): Traffic(9, 0, 0)})
    assert found["mptcp_pm_sent_bytes_total", (("interface", name), ("policy", "sync"))] == 9


def test_kernel_counters_are_those_that_it_has() -> None:
    """Each under its own name; what is none of MPTCP, or is called oddly, is left out; others are bounded."""

    def events(kernel: Mapping[str, int]) -> dict[str, float]:
        found = samples(Plane(), Timings(), kernel=kernel)
        return {dict(k)["counter"]: v for (n, k), v in found.items() if n == "mptcp_pm_kernel_events_total"}

    assert events(KERNEL) == {"MPJoinSynRx": 7, "DssFallback": 4, "Blackhole": 1}
    found = samples(Plane(), Timings())
    assert found["mptcp_pm_fallbacks_total", (("reason", "bad_dss"),)] == 4
    assert found["mptcp_pm_blackholes_total", ()] == 1
    old = {"MPTcpExtMPJoinSynRx": 7, 'MPTcpExt"}': 1}
    assert events(old) == {"MPJoinSynRx": 7}
    assert ("mptcp_pm_blackholes_total", ()) not in samples(Plane(), Timings(), kernel=old)
    assert len(events({f"MPTcpExtX{n}": n for n in range(1000)})) == COUNTERS_MAX


def test_results_of_joins_are_there_from_the_start() -> None:
    """So that the first rise of each is seen; they have no other name."""
    found = samples(Plane(), Timings())
    results = [dict(labels)["result"] for name, labels in found if name == "mptcp_pm_joins_total"]
    assert sorted(results) == sorted(JOIN_RESULTS)
    assert set(FailureKind) - set(results) == {FailureKind.COMMAND, FailureKind.ENDED}
    assert not [name for name, _ in found if name.startswith("mptcp_pm_join_e")]


async def test_lag_is_measured_while_somebody_scrapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle service that nobody looks at does not wake up for it; a later scrape begins it again."""
    monkeypatch.setattr("pm.api.metrics.LAG_INTERVAL_S", 0.001)
    monkeypatch.setattr("pm.api.metrics.LAG_WANTED_S", 0.02)
    timings, loop = Timings(), asyncio.get_running_loop()
    watching = asyncio.create_task(timings.watch_lag())

    async def measured() -> float:
        before = timings.lag.buckets()[-1][1]
        await asyncio.sleep(0.1)
        return timings.lag.buckets()[-1][1] - before

    assert await measured() == 0
    for _ in range(2):
        begun = loop.time()
        timings.scraped()
        assert await measured() > 0
        assert loop.time() - begun > 0.02
        assert await measured() == 0
    watching.cancel()
