# SPDX-License-Identifier: Apache-2.0
"""The JSON that REST answers with, declared once: ``views`` builds it, ``openapi`` describes it.

Times are RFC 3339 in UTC, durations are in seconds, sizes in bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.api.closed_shapes import ClosedSubflowShape, EarlierSubflowsShape, TrafficShape
from pm.api.common_shapes import Count, Ip, Port, SubflowNameShape, Time, Token
from pm.api.schemas import CURSOR, DIGEST
from pm.model import SUBFLOWS_MAX, EventKind, Role, SubflowState
from pm.policies.built_in_options import BUILT_IN_OPTIONS
from pm.sessions import history
from pm.sessions.missing import PairState
from pm.sessions.session import SessionState


class RemoteAddressShape(TypedDict):
    ip: Ip
    port: Annotated[Port, Doc("0 if the peer gave none.")]
    address_id: Annotated[int, Ge(0), Le(255), Doc("0 is the address of the initial subflow.")]


class SubflowShape(SubflowNameShape):
    """One TCP subflow. The kernel's figures are null once its socket is gone."""

    state: SubflowState
    stuck: Annotated[bool, Doc("What this end sent is not acknowledged any more; another path takes over.")]
    reason: Annotated[str, Doc("Why it was opened, in words.")]
    rtt_s: Annotated[float | None, Doc("Smoothed round-trip time, seconds.")]
    cwnd: Annotated[int | None, Doc("Congestion window, segments.")]
    congestion_control: str | None
    bytes_sent: int | None
    bytes_received: int | None
    retransmits: Annotated[int | None, Doc("Segments retransmitted, in all.")]
    delivery_rate: Annotated[int | None, Doc("Bytes per second.")]


class RetryShape(TypedDict):
    """A subflow that is wanted but could not be opened."""

    local: Ip
    remote: Ip
    remote_port: Port
    failures: Count
    reason: str


class UnroutableShape(TypedDict):
    """A pair of addresses that is not used: no packet of a subflow would leave as it should."""

    local: Ip
    remote: Ip
    remote_port: Port
    reason: str


class MissingPairShape(TypedDict):
    """A pair of addresses that has fewer subflows than it could have."""

    local: Ip
    remote: Ip
    remote_port: Port
    state: PairState
    age_s: Annotated[float | None, Doc("How long its SYN has been without an answer.")]
    retransmits: Annotated[int | None, Doc("How often that SYN was sent again.")]
    failures: Annotated[Count, Doc("In a row.")]
    retry_in_s: Annotated[float | None, Doc("When it is tried again.")]
    reason: Annotated[str, Doc("Why, as far as the service knows by itself; may be empty.")]


class SessionShape(TypedDict):
    """One MPTCP connection. Its keys are never shown."""

    token: Token
    role: Role
    state: SessionState
    policy: Annotated[str | None, Doc("Null if no policy owns the session's cgroup.")]
    path_manager: str | None
    cgroup: Annotated[str | None, Doc("Path below the cgroup2 root.")]
    managed: Annotated[bool, Doc("Whether the service decides which subflows it has.")]
    program: Annotated[
        str | None,
        Doc("BPF program that claimed it and opens its subflows; null if the service opens them."),
    ]
    age_s: float
    created_at: Time
    established_at: Time | None
    sampled_at: Annotated[
        str, Doc("When this was read from the kernel, RFC 3339; in a list, at most one second ago.")
    ]
    remote_addresses: list[RemoteAddressShape]
    failed: list[RetryShape]
    unroutable: list[UnroutableShape]
    subflows: list[SubflowShape]


class HistoryShape(TypedDict):
    time: Time
    event: str
    detail: str


class SubflowOptionShape(TypedDict):
    """What happened to one TCP option on one subflow."""

    subflow: Annotated[str, Doc("`id` of the subflow.")]
    option: Annotated[str, Doc("Name of the plugin.")]
    sent: bool
    received: bool
    applied: Annotated[
        int | None,
        Doc(
            "What this end set because of it: "
            + ", ".join(f"`{option.name}` {option.unit}" for option in BUILT_IN_OPTIONS)
            + "."
        ),
    ]
    refused: Annotated[str | None, Doc("Why the peer's option was last refused.")]


class SessionDetailShape(SessionShape):
    """One session with its history, its TCP options and the subflows that it should have and has not."""

    totals: Annotated[TrafficShape, Doc("Of all its subflows, those that have ended too.")]
    closed_subflows: Annotated[list[ClosedSubflowShape], Doc(f"The last {SUBFLOWS_MAX}, newest last.")]
    earlier_subflows: EarlierSubflowsShape
    missing: list[MissingPairShape]
    options: list[SubflowOptionShape]
    events: Annotated[list[HistoryShape], Doc(f"The last {history.LENGTH} events, newest last.")]


class SessionsShape(TypedDict):
    sessions: list[SessionShape]
    next: Annotated[str | None, CURSOR, Doc("`cursor` of the next page; null on the last.")]


class PathManagerShape(TypedDict):
    name: str
    parameters: dict[str, Any]


class StartShape(TypedDict):
    after_s: Annotated[float, Ge(0)]
    after_bytes: Count


AcceptShape = TypedDict("AcceptShape", {"max_subflows": int | None, "from": list[str] | None})


class PolicyShape(TypedDict):
    name: str
    cgroup: Annotated[str, Doc("The configured glob.")]
    path_manager: PathManagerShape
    start: StartShape
    announce: bool
    accept: AcceptShape
    options: Annotated[
        dict[str, Any], Doc("TCP options as configured, with defaults; durations are seconds.")
    ]
    cgroups: Annotated[list[str], Doc("Cgroups that match now and have a classifier attached.")]
    sessions: Annotated[int, Doc("Number of live sessions, counted at most one second ago.")]


class PoliciesShape(TypedDict):
    policies: list[PolicyShape]


class AddressShape(TypedDict):
    ip: Ip
    prefix_len: Annotated[int, Ge(0), Le(128)]
    interface: str
    ifindex: int
    kind: Annotated[str, Doc('The kernel\'s name for the kind of the interface; "" for hardware.')]
    metric: Annotated[int | None, Doc("Of the route over the interface to elsewhere, if it is known.")]
    usable: bool
    up: Annotated[bool, Doc("Whether it can carry packets, whatever the configured rules say.")]
    backup: Annotated[bool, Doc("Subflows from it carry the backup flag.")]
    why: Annotated[str, Doc("Why it is usable, or why not.")]


class AddressesShape(TypedDict):
    addresses: list[AddressShape]


class ConfigProblemShape(TypedDict):
    file: str
    line: Annotated[int, Doc("1-based; 0 if the problem is on no line.")]
    path: str
    message: str


class LastReloadShape(TypedDict):
    time: Time
    ok: bool
    problems: list[ConfigProblemShape]


class SourceShape(TypedDict):
    path: str
    digest: Annotated[str, DIGEST, Doc("SHA-256 of the content in force, hexadecimal.")]


class ConfigShape(TypedDict):
    path: str
    digest: Annotated[str, DIGEST, Doc("SHA-256 of the configuration in force, hexadecimal.")]
    warnings: Annotated[list[ConfigProblemShape], Doc("What in it is valid, and most likely a mistake.")]
    sources: Annotated[list[SourceShape], Doc("C files of third parties that are in force.")]
    last_reload: LastReloadShape


class CheckShape(TypedDict):
    name: str
    ok: bool
    required: bool
    found: str
    remedy: Annotated[str, Doc("The command that fixes it; empty if all is well.")]


class KernelShape(TypedDict):
    release: str
    checks: list[CheckShape]


class StatusShape(TypedDict):
    version: str
    pid: int
    ready: bool
    reasons: Annotated[
        list[str], Doc("Why it is not ready any more: what others changed. The service leaves it so.")
    ]
    started_at: Time
    uptime_s: float
    datapath: str
    selection: Annotated[str, Doc("`cgroup`, or `namespace`: the policy for `/` owns every session.")]
    kernel: KernelShape
    config: ConfigShape
    sessions: Count
    counters: dict[str, int]
    options: Annotated[
        dict[str, dict[str, int]],
        Doc("How often each event of a TCP option happened, by plugin; empty if no policy has options."),
    ]


class EventShape(TypedDict):
    """Data of one server-sent event. The event's `event` field is `type`, and its `id` ascends by one."""

    time: Time
    type: Annotated[str, Doc(f"{', '.join(f'`{kind}`' for kind in EventKind)}.")]
    action: str
    token: Token | None
    detail: dict[str, Any]


class HealthShape(TypedDict):
    status: Literal["ok"]


class ReadinessShape(TypedDict):
    status: Literal["ok", "starting", "changed"]
    reasons: Annotated[list[str], Doc("What others changed, as in `/v1/status`.")]
