# SPDX-License-Identifier: Apache-2.0
"""What subflows have carried, those that have ended too: shapes as in ``shapes``."""

from __future__ import annotations

from typing import Annotated, TypedDict

from annotated_types import Ge
from typing_extensions import Doc

from pm.api.common_shapes import Count, SubflowNameShape, Time
from pm.sessions.closed_subflows import FigureSource


class TrafficShape(TypedDict):
    """What subflows have carried: SYN and FIN of each count as a byte, as in `ss`."""

    bytes_acked: Annotated[int, Doc("Sent, and acknowledged by the peer.")]
    bytes_received: int
    retransmits: Annotated[int, Doc("Segments retransmitted.")]


class ClosedSubflowShape(SubflowNameShape, TrafficShape):
    """A subflow that was established, and has ended."""

    interface: Annotated[str | None, Doc("That with the local address; null where it is not known.")]
    duration_s: Annotated[float, Ge(0), Doc("Since it was established, or found by the service.")]
    closed_at: Time
    reason: Annotated[str, Doc("Why it ended.")]
    rtt_s: Annotated[float, Ge(0), Doc("Smoothed round-trip time; 0 where it was never measured.")]
    source: Annotated[
        FigureSource,
        Doc(
            "`kernel`: a program reported the figures when the socket was closed. `last_sample`: they are "
            "those that the kernel last showed, from before the end."
        ),
    ]


class EarlierSubflowsShape(TrafficShape):
    """Subflows that have ended and are not listed any more."""

    count: Count
