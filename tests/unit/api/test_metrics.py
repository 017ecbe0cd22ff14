# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from pm.api.interface_census import InterfaceCounts, Rtt
from pm.api.kernel_metrics import COUNTERS_MAX
from pm.api.metrics import Histogram, Snapshot, Timings, exposition
from pm.errors import Problem
from pm.sessions.ledger import Account
from pm.sessions.traffic import Traffic
from tests.unit.api.plane import Plane

SYNC = Account("sync", "eth0")
COUNTS = InterfaceCounts(
    sessions=Counter({SYNC: 2}),
    subflows=Counter({(SYNC, "established"): 4, (SYNC, "opening"): 1}),
    stuck=Counter({SYNC: 1}),
    rtts={"eth0": Rtt(0.02, 0.5)},
)
CARRIED = {SYNC: Traffic(1000, 2000, 3), Account(None, ""): Traffic(1, 2, 0)}
KERNEL = {
    "MPTcpExtMPJoinSynTx": 7,
    "MPTcpExtMPCurrEstab": 2,
    "MPTcpExtDssFallback": 4,
    "MPTcpExtBlackhole": 1,
    "TcpExtIPReversePathFilter": 5,
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
        sessions={("sync", "established"): 2, (None, "created"): 1},
        subflows={"established": 5, "opening": 0, "failed": 2},
        timings=timings,
        options={"user_timeout": {"sent": 4, "malformed": 1}},
        interfaces=COUNTS,
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
    for state, count in (("established", 5), ("opening", 0), ("failed", 2)):
        assert found["mptcp_pm_subflows", (("state", state),)] == count
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


def test_interfaces_have_what_each_policy_has_and_carried_there() -> None:
    """By policy and interface; sessions of no policy, and unknown interfaces, have ""."""
    found = samples(Plane(), Timings())
    prefix, labels = "mptcp_pm_interface_", (("interface", "eth0"), ("policy", "sync"))
    assert found[prefix + "sessions", labels] == 2
    assert found[prefix + "subflows", (*labels, ("state", "established"))] == 4
    assert found[prefix + "stuck_subflows", labels] == 1
    assert found[prefix + "sent_bytes_total", labels] == 1000
    assert found[prefix + "received_bytes_total", labels] == 2000
    assert found[prefix + "retransmits_total", labels] == 3
    assert found[prefix + "sent_bytes_total", (("interface", ""), ("policy", ""))] == 1
    assert found[prefix + "rtt_median_seconds", (("interface", "eth0"),)] == 0.02
    assert found[prefix + "rtt_max_seconds", (("interface", "eth0"),)] == 0.5


def test_label_values_are_escaped() -> None:
    """An interface may have any name that the kernel takes."""
    name = 'e"\\\n<x>\ufffdff'
    found = samples(Plane(), Timings(), carried={Account("sync", name): Traffic(9, 0, 0)})
    assert found["mptcp_pm_interface_sent_bytes_total", (("interface", name), ("policy", "sync"))] == 9


def test_kernel_counters_are_those_that_it_has() -> None:
    """Each under its own name; what is none of MPTCP, or is called oddly, is left out."""
    found = samples(Plane(), Timings())
    events = {
        dict(labels)["counter"]: v for (n, labels), v in found.items() if n == "mptcp_pm_kernel_events_total"
    }
    assert events == {"MPJoinSynTx": 7, "DssFallback": 4, "Blackhole": 1}
    assert found["mptcp_pm_kernel_sessions", ()] == 2
    assert found["mptcp_pm_fallbacks_total", (("reason", "bad_dss"),)] == 4
    assert found["mptcp_pm_blackholes_total", ()] == 1
    older = samples(Plane(), Timings(), kernel={"MPTcpExtMPJoinSynTx": 7, 'MPTcpExt"}': 1})
    assert ("mptcp_pm_blackholes_total", ()) not in older
    assert [labels for name, labels in older if name == "mptcp_pm_kernel_events_total"] == [
        (("counter", "MPJoinSynTx"),)
    ]
    many = samples(Plane(), Timings(), kernel={f"MPTcpExtX{n}": n for n in range(1000)})
    assert sum(name == "mptcp_pm_kernel_events_total" for name, _ in many) == COUNTERS_MAX


def test_results_of_joins_are_all_there() -> None:
    """Each result has a sample from the start, so that its first rise is seen."""
    found = samples(Plane(), Timings())
    results = {dict(labels)["result"] for name, labels in found if name == "mptcp_pm_joins_total"}
    assert results == {"established", "unanswered", "unreachable", "reset", "no_mptcp", "refused", "dropped"}
    assert not [name for name, _ in found if name.startswith("mptcp_pm_join_established")]


def test_documentation_has_every_metric() -> None:
    """docs/api.md lists the metrics that are exposed, by their names."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()
    timings = Timings()
    timings.observe_answer("none", 0.1)
    found = {re.sub("_(bucket|sum|count)$", "", name) for name, _ in samples(Plane(), timings)}
    assert set(re.findall(r"`(mptcp_pm_\w+)`", text)) == found
