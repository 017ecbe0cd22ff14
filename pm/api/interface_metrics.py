# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of the interfaces: what each policy has there now, and what it has carried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from pm.api.interface_census import InterfaceCounts
from pm.sessions.ledger import Account
from pm.sessions.traffic import Traffic

_LABELS = ("policy", "interface")
_PREFIX = "mptcp_pm_interface_"


def interface_metrics(counts: InterfaceCounts, carried: Mapping[Account, Traffic]) -> Iterator[Metric]:
    """``carried`` is since the service started; the interface is "" where it is not known."""
    yield _by_account(
        GaugeMetricFamily(
            _PREFIX + "sessions", "Sessions with an established subflow there.", labels=_LABELS
        ),
        counts.sessions.items(),
    )
    subflows = GaugeMetricFamily(_PREFIX + "subflows", "Live subflows by state.", labels=[*_LABELS, "state"])
    for (account, state), count in sorted(counts.subflows.items(), key=str):
        subflows.add_metric([*_values(account), state], count)
    yield subflows
    yield _by_account(
        GaugeMetricFamily(
            _PREFIX + "stuck_subflows",
            "Established subflows whose data is not acknowledged any more.",
            labels=_LABELS,
        ),
        counts.stuck.items(),
    )
    yield from _rtts(counts)
    for name, text, sums in (
        (
            "sent_bytes",
            "Payload that the peer acknowledged, on subflows that live and that have closed.",
            {account: traffic.bytes_acked for account, traffic in carried.items()},
        ),
        (
            "received_bytes",
            "Payload that came, on subflows that live and that have closed.",
            {account: traffic.bytes_received for account, traffic in carried.items()},
        ),
        (
            "retransmits",
            "Segments that were sent again.",
            {account: traffic.retransmits for account, traffic in carried.items()},
        ),
    ):
        yield _by_account(CounterMetricFamily(_PREFIX + name, text, labels=_LABELS), sums.items())


def _rtts(counts: InterfaceCounts) -> Iterator[Metric]:
    middle = GaugeMetricFamily(
        _PREFIX + "rtt_median_seconds",
        "Median of the smoothed round-trip times of the established subflows.",
        labels=["interface"],
    )
    longest = GaugeMetricFamily(
        _PREFIX + "rtt_max_seconds",
        "Longest of the smoothed round-trip times of the established subflows.",
        labels=["interface"],
    )
    for interface, rtt in sorted(counts.rtts.items()):
        middle.add_metric([interface], rtt.median)
        longest.add_metric([interface], rtt.longest)
    yield middle
    yield longest


def _by_account(
    family: CounterMetricFamily | GaugeMetricFamily, values: Iterable[tuple[Account, float]]
) -> Metric:
    for account, value in sorted(values, key=str):
        family.add_metric(_values(account), value)
    return family


def _values(account: Account) -> list[str]:
    return [account.policy or "", account.interface]
