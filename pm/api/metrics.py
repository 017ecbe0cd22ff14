# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics, made from what the service knows at the moment of a scrape.

The service counts in plain integers (``Status.counters``) and feeds ``Timings``; nothing is counted
again here. Names: https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pm.api.control import Status
from pm.api.kernel_metrics import kernel_metrics
from pm.api.listing import Census
from pm.api.traffic_metrics import traffic_metrics
from pm.sessions.actions import ActionKind
from pm.sessions.ledger import Account
from pm.sessions.session import JOIN_RESULTS, SessionState, join_counter
from pm.sessions.traffic import Traffic

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
JOIN_DELAY_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
LAG_INTERVAL_S = 0.25
LAG_WANTED_S = 300.0
"""After each scrape: where nobody scrapes, an idle service need not wake up for it."""
LAG_BOUNDS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
ANSWER_BOUNDS_S = (0.00001, 0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)

# Counter of the service -> name and help of its metric. Any other counter appears under its own name.
_TOTALS = {
    "events": ("events", "MPTCP events received from the kernel."),
    "events_lost": ("events_lost", "Times that the kernel dropped events because its queue was full."),
    "resyncs": ("resyncs", "Comparisons of the session table with sock_diag."),
    "comparisons_failed": ("comparisons_failed", "Comparisons with the kernel that it refused."),
    "subflow_stuck": ("subflows_stuck", "Subflows whose data was not acknowledged any more."),
    "subflow_recovered": ("subflows_recovered", "Stuck subflows that came back."),
    "joins_refused": ("joins_refused", "Subflows of peers that a policy refused."),
    "subflows_lost": ("subflows_lost", "Subflows that ended without this end closing them."),
    "path_manager_errors": (
        "path_manager_errors",
        "Exceptions that path managers raised, and answers that make no sense.",
    ),
    "classified": ("classified", "Connections for which a classifier recorded the policy."),
    "claimed": ("claimed", "Sessions that programs of the bpf datapath claimed."),
    "claim_failed": (
        "claim_failures",
        "Sessions that they could not claim because their map was full.",
    ),
    "log_lines_lost": ("log_lines_lost", "Log lines that could not be written."),
    "changes_noticed": ("changes_noticed", "Programs, pins and sysctls that somebody else changed."),
    "changes_set_back": ("changes_set_back", "Those that the service set back."),
    "audit_repairs": ("audit_repairs", "Sessions and subflows that a comparison with the kernel set right."),
    "repairs": ("repairs", "Actions that the service took because a program had not."),
    "failed": ("classification_failures", "Connections for which a classifier could not record the policy."),
    "finals_lost": ("final_figures_lost", "Subflows whose final figures found no room in the ring buffer."),
    "records_written": ("records_written", "Records of sessions that were written."),
    "records_lost": ("records_lost", "Records of sessions that could not be written."),
}


class Histogram:
    """Counts observations by upper bound; cheap enough for the path from event to command."""

    def __init__(self, bounds: tuple[float, ...] = JOIN_DELAY_BOUNDS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, number of observations up to it), cumulative as Prometheus expects."""
        total = 0
        found = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class Timings:
    """How long things took, since the start."""

    def __init__(self) -> None:
        self.join_delay = Histogram()
        self.path_managers: dict[str, Histogram] = {}
        self.lag = Histogram(LAG_BOUNDS_S)
        self._lag_wanted = asyncio.Event()
        self._scraped = 0.0

    def observe_answer(self, path_manager: str, seconds: float) -> None:
        """One answer of a path manager."""
        histogram = self.path_managers.get(path_manager)
        if histogram is None:
            histogram = self.path_managers[path_manager] = Histogram(ANSWER_BOUNDS_S)
        histogram.observe(seconds)

    def scraped(self) -> None:
        """Somebody looks."""
        self._scraped = asyncio.get_running_loop().time()
        self._lag_wanted.set()

    async def watch_lag(self) -> None:
        """Until cancelled, while somebody looks."""
        loop = asyncio.get_running_loop()
        while True:
            await self._lag_wanted.wait()
            if loop.time() - self._scraped > LAG_WANTED_S:
                self._lag_wanted.clear()
                continue
            due = loop.time() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            self.lag.observe(max(0.0, loop.time() - due))


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What one scrape shows.

    ``policies`` are the names of those in force. ``options`` counts by plugin and event. ``carried`` is the
    ledger's, ``kernel`` has the kernel's counters by the names that nstat(8) gives them.
    """

    status: Status
    census: Census
    policies: Sequence[str]
    timings: Timings
    options: Mapping[str, Mapping[str, int]]
    carried: Mapping[Account, Traffic]
    kernel: Mapping[str, int]


class SnapshotCollector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        status = self._snapshot.status
        info = GaugeMetricFamily(
            "mptcp_pm_build_info",
            "Always 1; the labels are version, datapath and kernel.",
            labels=["version", "datapath", "kernel"],
        )
        info.add_metric([status.version, status.datapath, status.kernel_release], 1)
        yield info
        yield GaugeMetricFamily(
            "mptcp_pm_start_time_seconds", "Start of the service, Unix time.", value=status.started_at.time
        )
        yield GaugeMetricFamily("mptcp_pm_ready", "1 while /readyz is 200.", value=status.ready)
        yield self._sessions()
        yield from traffic_metrics(self._snapshot.census, self._snapshot.carried)
        yield from kernel_metrics(self._snapshot.kernel)
        yield self._lag()
        yield GaugeMetricFamily(
            "mptcp_pm_config_last_reload_successful",
            "1 if the last load of the configuration succeeded.",
            value=status.last_reload.ok,
        )
        yield GaugeMetricFamily(
            "mptcp_pm_config_last_reload_timestamp_seconds",
            "Time of the last load of the configuration, Unix time.",
            value=status.last_reload.time,
        )
        yield from _counters(status.counters)
        yield self._options()
        yield self._answers()
        histogram = self._snapshot.timings.join_delay
        yield HistogramMetricFamily(
            "mptcp_pm_join_delay_seconds",
            "Time from an ESTABLISHED event until the kernel has the commands that open its subflows.",
            buckets=histogram.buckets(),
            sum_value=histogram.sum,
        )

    def _lag(self) -> Metric:
        lag = self._snapshot.timings.lag
        return HistogramMetricFamily(
            "mptcp_pm_event_loop_lag_seconds",
            "How late a timer was that is due four times a second: the event loop did something else.",
            buckets=lag.buckets(),
            sum_value=lag.sum,
        )

    def _answers(self) -> Metric:
        answers = HistogramMetricFamily(
            "mptcp_pm_path_manager_seconds",
            "How long path managers took to say which subflows a session should have.",
            labels=["path_manager"],
        )
        for name, histogram in sorted(self._snapshot.timings.path_managers.items()):
            answers.add_metric([name], histogram.buckets(), histogram.sum)
        return answers

    def _options(self) -> Metric:
        events = CounterMetricFamily(
            "mptcp_pm_option_events", "Events of TCP options.", labels=["option", "event"]
        )
        for plugin, counts in sorted(self._snapshot.options.items()):
            for event, count in counts.items():
                events.add_metric([plugin, event], count)
        return events

    def _sessions(self) -> Metric:
        sessions = GaugeMetricFamily(
            "mptcp_pm_sessions",
            "Live sessions; policy is empty for sessions without one.",
            labels=["policy", "state"],
        )
        # One that has none is 0, not missing: https://prometheus.io/docs/practices/instrumentation/
        names = ("", *self._snapshot.policies)
        counts = Counter(dict.fromkeys([(name, SessionState.ESTABLISHED.value) for name in names], 0))
        for (policy, state), count in self._snapshot.census.sessions.items():
            counts[policy or "", state] += count
        for labels, count in sorted(counts.items()):
            sessions.add_metric(labels, count)
        return sessions


def exposition(snapshot: Snapshot) -> bytes:
    """The snapshot in the text format of ``CONTENT_TYPE``."""
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(snapshot))
    return generate_latest(registry)


def _counters(counters: Mapping[str, int]) -> Iterator[Metric]:
    actions = CounterMetricFamily(
        "mptcp_pm_actions", "Commands to the kernel by kind and outcome.", labels=["kind", "outcome"]
    )
    for kind in ActionKind:
        actions.add_metric([kind, "ok"], counters.get(kind, 0))
        actions.add_metric([kind, "refused"], counters.get(kind.refused, 0))
    yield actions
    reloads = CounterMetricFamily(
        "mptcp_pm_config_reloads",
        "Reloads of the configuration by outcome.",
        labels=["outcome"],
    )
    reloads.add_metric(["ok"], counters.get("reloads", 0))
    reloads.add_metric(["failed"], counters.get("reloads_failed", 0))
    yield reloads
    joins = CounterMetricFamily(
        "mptcp_pm_joins",
        "Subflows by what became of them: established (the peer may refuse it then), accepted (opened by the "
        "peer), and how those failed that this end opened.",
        labels=["result"],
    )
    for result in JOIN_RESULTS:
        joins.add_metric([result], counters.get(join_counter(result), 0))
    yield joins
    shown = {
        *map(join_counter, JOIN_RESULTS),
        *ActionKind,
        *(kind.refused for kind in ActionKind),
        "reloads",
        "reloads_failed",
    }
    for name in sorted((counters.keys() | _TOTALS.keys()) - shown):
        metric, text = _TOTALS.get(name, (name, f"{name.replace('_', ' ').capitalize()}."))
        yield CounterMetricFamily(f"mptcp_pm_{metric}", text, value=counters.get(name, 0))
