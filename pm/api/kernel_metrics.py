# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of the kernel's own counters of MPTCP, those of the whole network namespace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

PREFIX = "MPTcpExt"
COUNTERS_MAX = 256
_SESSIONS, _BLACKHOLE = "MPCurrEstab", "Blackhole"
# Why a connection goes on as plain TCP, by the counter that says so.
FALLBACKS = {
    "MPCapableFallbackSYNACK": "syn_ack_without_mptcp",
    "MPCapableFallbackACK": "ack_without_mptcp",
    "MPCapableDataFallback": "data_without_mptcp",
    "MPCapableSYNTXDrop": "syn_dropped",
    "MPFallbackTokenInit": "no_token",
    "DSSCorruptionFallback": "dss_corruption",
    "DssFallback": "bad_dss",
    "MD5SigFallback": "md5_signature",
    "SimultConnectFallback": "simultaneous_connect",
    "InfiniteMapRx": "infinite_mapping",
}


def kernel_metrics(counters: Mapping[str, int]) -> Iterator[Metric]:
    """``counters`` by the names that nstat(8) gives them. A kernel that lacks one has no sample of it."""
    found = {
        name.removeprefix(PREFIX): count
        for name, count in counters.items()
        if re.fullmatch(f"{PREFIX}[A-Za-z0-9_]{{1,64}}", name)
    }
    if _SESSIONS in found:
        yield GaugeMetricFamily(
            "mptcp_pm_kernel_sessions",
            "Established MPTCP sessions of the network namespace (MPTcpExtMPCurrEstab).",
            value=found.pop(_SESSIONS),
        )
    events = CounterMetricFamily(
        "mptcp_pm_kernel_events",
        "Every MPTcpExt counter of the network namespace, by its name in nstat; their sum means nothing.",
        labels=["counter"],
    )
    for name, count in sorted(found.items())[:COUNTERS_MAX]:
        events.add_metric([name], count)
    yield events
    fallbacks = CounterMetricFamily(
        "mptcp_pm_fallbacks",
        "Connections of the network namespace that went on as plain TCP, by reason.",
        labels=["reason"],
    )
    for name, reason in FALLBACKS.items():
        if name in found:
            fallbacks.add_metric([reason], found[name])
    yield fallbacks
    if _BLACKHOLE in found:
        yield CounterMetricFamily(
            "mptcp_pm_blackholes",
            "Times that the kernel stopped to use MPTCP because SYNs with it got no answer.",
            value=found[_BLACKHOLE],
        )
