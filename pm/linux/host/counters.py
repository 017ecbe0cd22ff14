# SPDX-License-Identifier: Apache-2.0
"""The kernel's counters of MPTCP (MPTcpExt), and how much they rose lately.

They are those of the whole network namespace: the kernel has none of one session that say why.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from pm.kernel import Rises

INTERVAL_S = 60.0
SAMPLES_MAX = 60
NETSTAT = Path("/proc/net/netstat")
RP_FILTER = "TcpExtIPReversePathFilter"  # packets dropped by strict rp_filter


class _Sample(NamedTuple):
    at: float
    counters: Mapping[str, int]


class CounterHistory:
    """Samples of an hour, by ``run``; the first one is taken when it is made."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._samples = deque([self._sample()], SAMPLES_MAX)

    async def run(self) -> None:
        """Take a sample each minute, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await asyncio.to_thread(self.take_sample)

    def take_sample(self) -> None:
        """Reads a file of /proc."""
        self._samples.append(self._sample())

    def rises_since(self, moment: float) -> Rises:
        """What rose since the last sample before ``moment`` (monotonic clock), or since the oldest one."""
        before = next((s for s in reversed(self._samples) if s.at <= moment), self._samples[0])
        now = self._sample()
        rises = {name: now.counters[name] - before.counters.get(name, 0) for name in now.counters}
        return Rises({name: rise for name, rise in rises.items() if rise > 0}, now.at - before.at)

    def _sample(self) -> _Sample:
        return _Sample(self._monotonic(), read_counters())


def read_counters(netstat: Path = NETSTAT) -> dict[str, int]:
    """Every MPTcpExt counter and RP_FILTER, by the names that nstat(8) gives them; empty without MPTCP."""
    try:
        lines = netstat.read_text().splitlines()
    except OSError:
        return {}
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        group, _, rest = names.partition(":")
        counts = values.partition(":")[2].split()
        found |= {group + name: int(count) for name, count in zip(rest.split(), counts, strict=False)}
    return {n: count for n, count in found.items() if n.startswith("MPTcpExt") or n == RP_FILTER}
