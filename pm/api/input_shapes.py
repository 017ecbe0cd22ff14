# SPDX-License-Identifier: Apache-2.0
"""What REST accepts, declared once: ``inputs`` checks it, ``openapi`` describes it.

In a body, a default of ``None`` stands for the value of the session's initial subflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.api.schemas import ADDRESS, CURSOR
from pm.model import EventKind
from pm.sessions.session import SessionState

INODES_MAX = 500  # in one question: they fit the request line


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSubflow:
    """A subflow to open. Fields that are left out are taken from the session's initial subflow."""

    local: Annotated[str | None, ADDRESS, Doc("Local IP address.")] = None
    remote: Annotated[str | None, ADDRESS, Doc("Remote IP address.")] = None
    remote_port: Annotated[int | None, Ge(1), Le(65535)] = None
    backup: Annotated[bool | None, Doc("Left out: whether the local address is in `addresses.backup`.")] = (
        None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSubflow:
    """What can be changed on a live subflow."""

    backup: Annotated[bool, Doc("Set or clear the backup flag; the peer is told (MP_PRIO).")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionQuery:
    """Which sessions to list, and which page of them."""

    policy: Annotated[str | None, Doc("Only sessions of this policy.")] = None
    cgroup: Annotated[str | None, Doc("Only sessions of this cgroup and of those below it.")] = None
    state: Annotated[SessionState | None, Doc("Only sessions in this state.")] = None
    search: Annotated[
        str | None,
        Doc("Only sessions with this text in their token, policy, cgroup or addresses; in any case."),
    ] = None
    limit: Annotated[int, Ge(1), Le(1000), Doc("Sessions on a page.")] = 100
    cursor: Annotated[str | None, CURSOR, Doc("`next` of the previous page.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events to send."""

    type: Annotated[EventKind | None, Doc("Only events of this type.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionQuery:
    """Which TCP sockets of the service's network namespace are asked about: exactly one of these."""

    address: Annotated[
        str | None, Doc("Either end of connections, or a listener: `IP`, `IP:PORT` or `[IP]:PORT`.")
    ] = None
    cgroup: Annotated[str | None, Doc("Sockets of this cgroup and of those below it.")] = None
    inodes: Annotated[
        str | None,
        Doc(f"Numbers, {INODES_MAX} at most, with commas: the `N` of `socket:[N]` in `/proc/PID/fd`."),
    ] = None
