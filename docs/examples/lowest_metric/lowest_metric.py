# SPDX-License-Identifier: Apache-2.0
"""``lowest_metric``: subflows over the interfaces whose routes have the lowest metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.model import LocalAddress, Want, Wanted
from pm.path_managers.base import SessionView
from pm.path_managers.remotes import candidates


class LowestMetric:
    name: ClassVar[str] = "lowest_metric"
    summary: ClassVar[str] = "Subflows over the interfaces whose routes have the lowest metrics."

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Parameters:
        max_interfaces: Annotated[int, Ge(1), Le(16), Doc("Interfaces used in all.")] = 1

    @staticmethod
    def wanted(session: SessionView, addresses: Sequence[LocalAddress], parameters: Parameters) -> Wanted:
        metrics: dict[int, float] = {}
        for address in addresses:
            metric = inf if address.metric is None else address.metric
            metrics[address.ifindex] = min(metric, metrics.get(address.ifindex, inf))
        preferred = sorted(metrics, key=lambda ifindex: metrics[ifindex])[: parameters.max_interfaces]
        wanted: Wanted = {session.initial_pair: Want()}
        for pair, address in candidates(session, addresses).items():
            if address.ifindex in preferred:
                wanted[pair] = Want(backup=address.backup)
        return wanted
