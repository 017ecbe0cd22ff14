# SPDX-License-Identifier: Apache-2.0
"""The JSON about what would be done (``pm.sessions.preview``); see ``shapes``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypedDict

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.api.common_shapes import Count, Ip, Port, Token
from pm.api.schemas import ADDRESS, DIGEST
from pm.api.shapes import ConfigProblemShape, StartShape, UnroutableShape


class PlannedSubflowShape(TypedDict):
    """A subflow that would be opened."""

    local: Ip
    remote: Ip
    remote_port: Port
    backup: bool
    bound: Annotated[bool, Doc("Bound to the interface of its address.")]


class ExplanationShape(TypedDict):
    """What a connection would get."""

    cgroup: str
    policy: Annotated[str | None, Doc("Null if no policy owns the cgroup: the connection is left alone.")]
    matched: Annotated[str | None, Doc("The glob of the policy.")]
    path_manager: str | None
    start: Annotated[StartShape | None, Doc("When the extra subflows are opened.")]
    local: Annotated[str, ADDRESS, Doc("Local address that the kernel would choose.")]
    remote: Ip
    remote_port: Port
    subflows: Annotated[list[PlannedSubflowShape], Doc("Those beside the initial one, in order.")]
    unroutable: list[UnroutableShape]
    complaint: Annotated[str | None, Doc("What was wrong with the path manager's answer; null if nothing.")]


class ClosingSubflowShape(TypedDict):
    id: str
    reason: str


class BackupChangeShape(TypedDict):
    id: str
    backup: bool


class ChangedSessionShape(TypedDict):
    """What a reload would do to one session."""

    token: Token
    policy: str | None
    new_policy: str | None
    opens: list[PlannedSubflowShape]
    closes: list[ClosingSubflowShape]
    backups: list[BackupChangeShape]


class DryRunShape(TypedDict):
    """What a reload would do."""

    path: str
    digest: Annotated[str, DIGEST, Doc("SHA-256 of the file, hexadecimal.")]
    in_force: Annotated[str, DIGEST, Doc("SHA-256 of the configuration in force.")]
    warnings: list[ConfigProblemShape]
    sessions: Annotated[int, Ge(0), Doc("Sessions that were looked at.")]
    opens: Count
    closes: Count
    changed: Annotated[list[ChangedSessionShape], Doc("At most 1000.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What to try."""

    content: Annotated[str | None, Doc("YAML, instead of what the configuration file has.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain:
    """A connection to explain."""

    cgroup: Annotated[str, Doc("Path below the cgroup2 root.")]
    remote: Annotated[str, ADDRESS, Doc("Remote IP address.")]
    remote_port: Annotated[int, Ge(1), Le(65535)] = 443
