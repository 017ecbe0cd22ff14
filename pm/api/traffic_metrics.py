# SPDX-License-Identifier: Apache-2.0
"""Metrics of what subflows carry, by policy and interface, and of the kernel's own counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from pm.api.listing import Census
from pm.sessions.ledger import OTHERS, Account
from pm.sessions.traffic import Traffic

INTERFACES_MAX = 256  # label values; what is beyond is added up as OTHERS
KERNEL_COUNTERS_MAX = 200  # Linux 6.18 has 76
MPTCP = "MPTcpExt"
SESSIONS = "MPTcpExtMPCurrEstab"  # the one that falls, too


def traffic_metrics(census: Census, carried: Mapping[Account, Traffic]) -> Iterator[Metric]:
    name_of = _Names(census, carried)
    counts: dict[tuple[str, str, str], int] = {}
    for (policy, interface, state), count in census.subflows.items():
        key = policy or "", name_of(interface), state
        counts[key] = counts.get(key, 0) + count
    subflows = GaugeMetricFamily(
        "mptcp_pm_subflows",
        "Live subflows; state failed: pairs of addresses that failed since they last worked.",
        labels=["policy", "interface", "state"],
    )
    for key, count in sorted(counts.items()):
        subflows.add_metric(key, count)
    yield subflows
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
    rtts = GaugeMetricFamily(
        "mptcp_pm_rtt_seconds",
        "Smoothed round-trip time of live subflows: the median of each interface.",
        labels=["interface"],
    )
    found: dict[str, list[int]] = {}
    for interface, of_interface in census.rtts_us.items():
        found.setdefault(name_of(interface), []).extend(of_interface)
    for interface, of_interface in sorted(found.items()):
        rtts.add_metric([interface], median(of_interface) / 1e6)
    yield rtts


def kernel_metrics(counters: Mapping[str, int]) -> Iterator[Metric]:
    """Of the network namespace, whoever made the sessions."""
    mine = {name: value for name, value in counters.items() if name.startswith(MPTCP) and name != SESSIONS}
    events = CounterMetricFamily(
        "mptcp_pm_kernel_events",
        "The kernel's counters of MPTCP in this network namespace, by the names of nstat(8).",
        labels=["counter"],
    )
    for name in sorted(mine)[:KERNEL_COUNTERS_MAX]:
        events.add_metric([name.removeprefix(MPTCP)], mine[name])
    yield events
    if SESSIONS in counters:
        yield GaugeMetricFamily(
            "mptcp_pm_kernel_sessions",
            "Established MPTCP connections of this network namespace, as the kernel counts them.",
            value=counters[SESSIONS],
        )


class _Names:
    """The label of an interface; it is the same in all metrics of a scrape."""

    def __init__(self, census: Census, carried: Mapping[Account, Traffic]) -> None:
        first = dict.fromkeys([*(a.interface for a in carried), *(i for _, i, _ in census.subflows)])
        self._shown = frozenset(list(first)[:INTERFACES_MAX])

    def __call__(self, interface: str) -> str:
        return interface if interface in self._shown else OTHERS
