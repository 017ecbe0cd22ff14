# SPDX-License-Identifier: Apache-2.0
"""Metrics of what subflows carry and how they are, by policy and interface."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from statistics import median

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from pm.api.listing import Census
from pm.interfaces import Interface
from pm.model import SubflowState
from pm.sessions.ledger import OTHERS, Account
from pm.sessions.traffic import Traffic

INTERFACES_MAX = 256  # label values; what is beyond is added up as OTHERS


def traffic_metrics(census: Census, carried: Mapping[Account, Traffic]) -> Iterator[Metric]:
    name_of = _Names(census, carried)
    # What has carried something and has no subflow now has 0, not nothing: a graph falls to it.
    known = {(account.policy or "", name_of(account.interface)) for account in carried}
    counts = Counter(dict.fromkeys([(*whose, SubflowState.ESTABLISHED.value) for whose in known], 0))
    for (policy, interface, state), count in census.subflows.items():
        counts[policy or "", name_of(interface), state] += count
    subflows = GaugeMetricFamily(
        "mptcp_pm_subflows",
        "Live subflows; state failed: pairs of addresses that failed since they last worked.",
        labels=["policy", "interface", "state"],
    )
    for key, count in sorted(counts.items()):
        subflows.add_metric(key, count)
    yield subflows
    yield from _live(census, known, name_of)
    sums: dict[tuple[str, str], Traffic] = {}
    for account, traffic in carried.items():
        sums.setdefault((account.policy or "", name_of(account.interface)), Traffic()).add_all(traffic)
    labels = ["policy", "interface"]
    sent = CounterMetricFamily(
        "mptcp_pm_sent_bytes", "Payload of subflows that their peers acknowledged.", labels=labels
    )
    received = CounterMetricFamily(
        "mptcp_pm_received_bytes", "Payload that subflows received.", labels=labels
    )
    again = CounterMetricFamily(
        "mptcp_pm_retransmitted_segments", "Segments that subflows sent again.", labels=labels
    )
    for whose, traffic in sorted(sums.items()):
        sent.add_metric(whose, traffic.bytes_acked)
        received.add_metric(whose, traffic.bytes_received)
        again.add_metric(whose, traffic.retransmits)
    yield from (sent, received, again)
    yield from _rtts(census, name_of)


def _live(census: Census, known: Collection[tuple[str, str]], name_of: _Names) -> Iterator[Metric]:
    stuck = GaugeMetricFamily(
        "mptcp_pm_stuck_subflows",
        "Established subflows whose data is not acknowledged any more.",
        labels=["policy", "interface"],
    )
    counts = Counter(dict.fromkeys(known, 0))
    for (policy, interface), count in census.stuck.items():
        counts[policy or "", name_of(interface)] += count
    for whose, count in sorted(counts.items()):
        stuck.add_metric(whose, count)
    sessions = GaugeMetricFamily(
        "mptcp_pm_interface_sessions",
        "Sessions with a subflow over the interface.",
        labels=["interface"],
    )
    over: Counter[str] = Counter()
    for interface, count in census.interfaces.items():
        over[name_of(interface)] += count
    for name, count in sorted(over.items()):
        sessions.add_metric([name], count)
    yield from (stuck, sessions)


def _rtts(census: Census, name_of: _Names) -> Iterator[Metric]:
    middle = GaugeMetricFamily(
        "mptcp_pm_rtt_seconds",
        "Smoothed round-trip time of live subflows: the median of each interface.",
        labels=["interface"],
    )
    longest = GaugeMetricFamily(
        "mptcp_pm_rtt_max_seconds",
        "Smoothed round-trip time of live subflows: the longest of each interface.",
        labels=["interface"],
    )
    found: dict[str, list[int]] = {}
    for interface, of_interface in census.rtts_us.items():
        found.setdefault(name_of(interface), []).extend(of_interface)
    for name, of_interface in sorted(found.items()):
        middle.add_metric([name], median(of_interface) / 1e6)
        longest.add_metric([name], max(of_interface) / 1e6)
    yield from (middle, longest)


class _Names:
    """The label of an interface; it is the same in all metrics of a scrape.

    Those that had a name one after the other are one to Prometheus.
    """

    def __init__(self, census: Census, carried: Mapping[Account, Traffic]) -> None:
        first = dict.fromkeys(
            [*(a.interface.name for a in carried), *(i.name for _, i, _ in census.subflows)]
        )
        self._shown = frozenset(list(first)[:INTERFACES_MAX])

    def __call__(self, interface: Interface) -> str:
        return interface.name if interface.name in self._shown else OTHERS
