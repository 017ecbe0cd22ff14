# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from pm.api.listing import Census
from pm.api.metrics import Histogram, Snapshot, Timings, exposition
from pm.api.traffic_metrics import traffic_metrics
from pm.errors import Problem
from pm.sessions.ledger import Account
from pm.sessions.traffic import Traffic
from tests.unit.api.plane import Plane


def samples(plane: Plane, timings: Timings) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    snapshot = Snapshot(
        status=plane.status(),
        census=Census(
            Counter({("sync", "established"): 2, (None, "created"): 1}),
            Counter({("sync", "eth0", "established"): 5, (None, "", "failed"): 2}),
            Counter({"eth0": 3}),
            {"eth0": [1000, 3000, 2000]},
        ),
        timings=timings,
        options={"user_timeout": {"sent": 4, "malformed": 1}},
        carried={Account("sync", "eth0"): Traffic(100, 200, 3), Account(None, "eth0"): Traffic(1, 2, 0)},
        kernel={"MPTcpExtMPJoinSynRx": 7, "MPTcpExtMPCurrEstab": 4, "TcpExtIPReversePathFilter": 1},
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
    carried = {Account("sync", f"veth{n}"): Traffic(1, 2, 3) for n in range(300)}
    census = Census(Counter(), Counter({("sync", "late", "established"): 1}), Counter(), {"late": [5]})
    found = {family.name: family for family in traffic_metrics(census, carried)}
    sent = {sample.labels["interface"]: sample.value for sample in found["mptcp_pm_sent_bytes"].samples}
    assert len(sent) == 257
    assert sent["others"] == 44
    assert [s.labels["interface"] for s in found["mptcp_pm_subflows"].samples] == ["others"]
