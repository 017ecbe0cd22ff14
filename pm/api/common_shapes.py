# SPDX-License-Identifier: Apache-2.0
"""What the shapes of REST have in common.

Times are RFC 3339 in UTC, durations are in seconds, sizes in bytes.
"""

from __future__ import annotations

from typing import Annotated, TypedDict

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.api.schemas import ADDRESS, TIME, TOKEN
from pm.model import Origin

Time = Annotated[str, TIME, Doc("RFC 3339, UTC.")]
Token = Annotated[
    str, TOKEN, Doc("Local token of the session (RFC 8684, section 3.2), `0x` and eight hex digits.")
]
Ip = Annotated[str, ADDRESS, Doc("IPv4 or IPv6 address.")]
Port = Annotated[int, Ge(0), Le(65535)]
Count = Annotated[int, Ge(0)]


class EndpointShape(TypedDict):
    ip: Ip
    port: Annotated[Port, Doc("0 until the kernel reports it.")]


class SubflowNameShape(TypedDict):
    """What a subflow is, whether it lives or has ended."""

    id: Annotated[str, Doc("Name of the subflow within its session, `LOCAL:PORT-REMOTE:PORT`.")]
    local: EndpointShape
    remote: EndpointShape
    local_id: Annotated[int, Ge(0), Le(255)]
    remote_id: Annotated[int, Ge(0), Le(255)]
    backup: Annotated[bool, Doc("This end set the backup flag.")]
    peer_backup: Annotated[bool, Doc("The peer set the backup flag.")]
    origin: Origin
