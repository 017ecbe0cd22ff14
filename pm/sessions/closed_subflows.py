# SPDX-License-Identifier: Apache-2.0
"""The subflows of a session that have ended, newest last; bounded: a peer can open one after another."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pm.clock import Moment
from pm.model import SUBFLOWS_MAX, Subflow


class FigureSource(StrEnum):
    """Where the last figures of a subflow are from."""

    KERNEL = "kernel"  # a program reported them when the socket was closed
    LAST_SAMPLE = "last_sample"  # of sock_diag, from before the end


@dataclass(slots=True, eq=False)
class ClosedSubflow:
    """``subflow.figures`` are its last ones. ``settled``: they are final, or will not get better."""

    subflow: Subflow
    closed: Moment
    reason: str
    source: FigureSource = FigureSource.LAST_SAMPLE
    settled: bool = False

    @property
    def duration_s(self) -> float:
        """Since it was established, or found by the service."""
        return self.closed.monotonic - self.subflow.since


class ClosedSubflows(list[ClosedSubflow]):
    """The last ``SUBFLOWS_MAX``; ``left_out`` counts those before."""

    __slots__ = ("left_out",)

    def __init__(self) -> None:
        super().__init__()
        self.left_out = 0

    def add(self, closed: ClosedSubflow) -> None:
        if len(self) >= SUBFLOWS_MAX:
            del self[0]
            self.left_out += 1
        self.append(closed)
