# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from pm.api.metrics import Histogram, Snapshot, Timings, exposition
from pm.errors import Problem
from tests.unit.api.plane import Plane


def samples(plane: Plane, timings: Timings) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    snapshot = Snapshot(
        status=plane.status(),
        sessions={("sync", "established"): 2, (None, "created"): 1},
        subflows={"established": 5, "opening": 0, "failed": 2},
        timings=timings,
        options={"user_timeout": {"sent": 4, "malformed": 1}},
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


def test_documentation_has_every_metric() -> None:
    """docs/api.md lists the metrics that are exposed, by their names."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()
    timings = Timings()
    timings.observe_answer("none", 0.1)
    found = {re.sub("_(bucket|sum|count)$", "", name) for name, _ in samples(Plane(), timings)}
    assert set(re.findall(r"`(mptcp_pm_\w+)`", text)) == found
