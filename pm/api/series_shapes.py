# SPDX-License-Identifier: Apache-2.0
"""Interfaces and figures over time: shapes as in ``shapes``."""

from __future__ import annotations

from typing import Annotated, TypedDict

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.api.common_shapes import Count, Ip, Time
from pm.model import LinkState

Rate = Annotated[float | None, Doc("Bytes per second; null before two samples.")]


class InterfaceShape(TypedDict):
    """What MPTCP carries over an interface. Rates are of the last second that was sampled."""

    name: Annotated[str, Doc('"" for subflows whose interface is not known.')]
    index: Annotated[int, Doc("0 for an interface that is gone.")]
    state: LinkState
    kind: Annotated[str, Doc('The kernel\'s name for the kind of the interface; "" for hardware.')]
    addresses: list[Ip]
    used: Annotated[bool, Doc("Path managers may use one of its addresses.")]
    reason: Annotated[str | None, Doc("Why it is not used.")]
    backup: Annotated[bool, Doc("Subflows from it carry the backup flag.")]
    sessions: Annotated[int, Doc("Sessions with a subflow over it.")]
    subflows: Count
    sent_per_second: Rate
    received_per_second: Rate
    bytes_sent: Annotated[
        int, Doc("Acknowledged by the peers since the service started, also on subflows that ended.")
    ]
    bytes_received: Annotated[int, Doc("Likewise.")]
    share: Annotated[float | None, Ge(0), Le(1), Doc("Of all bytes per second both ways; null without any.")]
    rtt: Annotated[float | None, Doc("Smoothed round-trip time, seconds: the median of its subflows.")]
    retransmits: Annotated[int, Doc("Segments, since the service started.")]
    retransmits_per_second: float | None


class SampledShape(TypedDict):
    sampled_sessions: Annotated[int, Doc("Sessions of the last sample: all, or 1,000 chosen at random.")]
    sessions: Annotated[int, Doc("Sessions that there were.")]


class InterfacesShape(SampledShape):
    interfaces: list[InterfaceShape]
    left_out: Annotated[int, Doc("Interfaces beyond 256.")]


class OneSeriesShape(TypedDict):
    name: str
    labels: dict[str, str]
    unit: str
    values: Annotated[list[float | None], Doc("One per element of `times`; null where it is not known.")]


class SeriesShape(SampledShape):
    """Samples go on for a minute after each request. There are none before the first."""

    interval: Annotated[float, Doc("Seconds between two samples.")]
    end: Annotated[Time | None, Doc("When the last sample was taken; null before the first.")]
    times: Annotated[list[float], Doc("Seconds from `end`, ascending, the last 0.")]
    series: list[OneSeriesShape]
