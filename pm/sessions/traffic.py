# SPDX-License-Identifier: Apache-2.0
"""Sums of what subflows have carried."""

from __future__ import annotations

from dataclasses import dataclass

from pm.model import Figures


@dataclass(slots=True)
class Traffic:
    """Payload that the peer acknowledged, payload that came, and segments that were sent again."""

    bytes_acked: int = 0
    bytes_received: int = 0
    retransmits: int = 0

    def add(self, before: Figures, after: Figures) -> None:
        """What a subflow has carried between two looks at it."""
        self.bytes_acked += after.bytes_acked - before.bytes_acked
        self.bytes_received += after.bytes_received - before.bytes_received
        self.retransmits += after.retransmits - before.retransmits

    def add_all(self, other: Traffic) -> None:
        self.bytes_acked += other.bytes_acked
        self.bytes_received += other.bytes_received
        self.retransmits += other.retransmits

    def subtract(self, figures: Figures) -> None:
        self.bytes_acked -= figures.bytes_acked
        self.bytes_received -= figures.bytes_received
        self.retransmits -= figures.retransmits
