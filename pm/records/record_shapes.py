# SPDX-License-Identifier: Apache-2.0
"""What a record says; docs/records.md explains it, config/record.schema.json is made of this."""

from __future__ import annotations

from typing import Annotated, TypedDict

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.api.closed_shapes import ClosedSubflowShape, EarlierSubflowsShape, TrafficShape
from pm.api.common_shapes import Count, EndpointShape, Ip, Port, Time, Token
from pm.model import SUBFLOWS_MAX, Role


class AddressShape(TypedDict):
    """An address that one end announced to the other."""

    ip: Ip
    port: Annotated[Port, Doc("0 if none was given.")]
    address_id: Annotated[int, Ge(0), Le(255)]


class RecordShape(TypedDict):
    """One MPTCP connection that is over. Its keys are in no record."""

    version: Annotated[int, Ge(1), Doc("It grows when a field changes its meaning; new fields may come.")]
    token: Token
    role: Role
    policy: Annotated[str | None, Doc("Null if no policy owned its cgroup.")]
    path_manager: str | None
    managed: Annotated[bool, Doc("Whether the service decided which subflows it has.")]
    cgroup: Annotated[str | None, Doc("Path below the cgroup2 root; null where it is unknown.")]
    cgroup_id: Annotated[Count, Doc("0 where it is unknown.")]
    created_at: Annotated[Time, Doc("When it was created, or found by the service.")]
    established_at: Time | None
    ended_at: Time
    duration_s: Annotated[float, Ge(0), Doc("From `created_at` to `ended_at`.")]
    reason: Annotated[str, Doc("How it ended.")]
    fallback: Annotated[
        bool | None, Doc("Whether it fell back to TCP; null where the kernel could not be asked any more.")
    ]
    local: Annotated[EndpointShape, Doc("Local end of the initial subflow.")]
    remote: Annotated[EndpointShape, Doc("Remote end of the initial subflow.")]
    announced: Annotated[list[AddressShape], Doc("Local addresses that the service announced.")]
    remote_addresses: Annotated[list[AddressShape], Doc("Addresses that the peer announced last.")]
    refused_addresses: Annotated[list[AddressShape], Doc("Those to which no subflow may go.")]
    totals: Annotated[TrafficShape, Doc("Of all its subflows.")]
    subflows: Annotated[
        list[ClosedSubflowShape], Doc(f"The last {SUBFLOWS_MAX}, in the order of their ends.")
    ]
    earlier_subflows: EarlierSubflowsShape
