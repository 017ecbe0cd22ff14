# SPDX-License-Identifier: Apache-2.0
"""The JSON about what is missing and why (``pm.sessions.why``); see ``shapes``."""

from __future__ import annotations

from typing import Annotated, TypedDict

from typing_extensions import Doc

from pm.api.common_shapes import Count, EndpointShape, Token
from pm.api.shapes import MissingPairShape
from pm.no_session import SOCKETS_MAX


class FindingShape(TypedDict):
    """A reason, with what shows it and what helps."""

    code: Annotated[str, Doc("A stable name; docs/why.md lists them.")]
    text: str
    evidence: Annotated[list[str], Doc("What the kernel said, one fact each.")]
    commands: Annotated[list[str], Doc("They help, or look closer; `text` says which.")]
    likely: Annotated[bool, Doc("Nothing proves it.")]


class WhyPairShape(MissingPairShape):
    """The same, with the reasons."""

    findings: list[FindingShape]


class WhyShape(TypedDict):
    """Why a session has no other path, or not all that it could have."""

    token: Token
    policy: str | None
    findings: Annotated[list[FindingShape], Doc("About the session as a whole.")]
    pairs: list[WhyPairShape]


class SocketShape(TypedDict):
    """A TCP connection or a listener: its MPTCP session, or why it has none."""

    local: EndpointShape
    remote: Annotated[EndpointShape | None, Doc("Null for a listener.")]
    state: Annotated[str, Doc("The kernel's TCP state, such as `established` or `listen`.")]
    inode: Annotated[int, Doc("Of `socket:[N]` in `/proc/PID/fd`; 0 if no process has it open.")]
    cgroup: Annotated[str | None, Doc("Path below the cgroup2 root.")]
    mptcp: Annotated[bool, Doc("Whether the program made an MPTCP socket.")]
    findings: Annotated[list[FindingShape], Doc("Why MPTCP is not used.")]
    session: Annotated[WhyShape | None, Doc("Where MPTCP is used.")]


class SocketsShape(TypedDict):
    """The TCP sockets that were asked about."""

    namespace: Annotated[int, Doc("Inode of the service's network namespace, as in `net:[N]`.")]
    looked_at: Annotated[Count, Doc("TCP sockets of the namespace.")]
    left_out: Annotated[Count, Doc(f"Sockets that match too: at most {SOCKETS_MAX} are in the answer.")]
    sockets: list[SocketShape]
