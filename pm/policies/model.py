# SPDX-License-Identifier: Apache-2.0
"""A policy and its parts as typed models: the one place for names, defaults, ranges and documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.names import read_name
from pm.notation import AUTOMATIC, OFF, Check, Duration, Network, Size
from pm.path_managers.choice import PathManagerChoice
from pm.policies.globs import check_cgroup
from pm.policies.rates import Rate
from pm.policies.tcp_options import Options

KEEPALIVE_MAX_S = 32767  # MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL, include/net/tcp.h
ACCEPT_DEFAULT = 8
_INTERFACE_NAME_MAX = 15  # IFNAMSIZ - 1, include/uapi/linux/if.h
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


def check_name(text: str) -> None:
    if not re.fullmatch(_NAME, text):
        raise ValueError(
            f"{text!r} is not a valid name: use 1 to 64 letters, digits, `-`, `_` and `.`, "
            "starting with a letter or digit"
        )


def check_interface_glob(text: str) -> None:
    if not text or re.search(r"[\x00-\x20/\x7f]", text):
        raise ValueError(f"{text!r} is not an interface: write a name, or a glob such as 'eth*'")
    if re.search(r"\[(?!!?.[^\]]*\])", text):
        raise ValueError(f"bad glob: `[` is not closed in `{text}`: add `]`")
    if not re.search(r"[*?[]", text) and len(read_name(text)) > _INTERFACE_NAME_MAX:
        raise ValueError(
            f"`{text}` is too long: interface names have at most {_INTERFACE_NAME_MAX} characters"
        )


CGROUP_GLOB = Check(
    "a cgroup glob, such as `/system.slice/nginx.service`, or `auto`", check_cgroup, "^(/|auto$)"
)
NAME = Check("a name", check_name, f"^{_NAME}$")
INTERFACE_GLOB = Check("an interface name or glob", check_interface_glob, r"^[^\s/]+$")

InterfaceGlob = Annotated[str, INTERFACE_GLOB]


class BindInterface(StrEnum):
    AUTO = "auto"
    TRUE = "true"
    FALSE = "false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    include: Annotated[
        tuple[InterfaceGlob, ...],
        Doc(
            "Interfaces (globs) whose addresses may be used. Tunnels, bridges without an uplink, and dummy, "
            "ifb and VRF interfaces are used only if an entry other than `*` matches them."
        ),
    ] = ("*",)
    exclude: Annotated[
        tuple[InterfaceGlob, ...], Doc("Interfaces (globs) that are never used; this wins over `include`.")
    ] = ()
    all: Annotated[
        bool,
        Doc(
            "Use all addresses of an interface. Otherwise it is one per network prefix: the one that the "
            "kernel itself takes for a new connection, so that `use_tempaddr` holds."
        ),
    ] = False
    link_local: Annotated[bool, Doc("Also use link-local addresses (169.254.0.0/16, fe80::/10).")] = False
    backup: Annotated[
        tuple[InterfaceGlob, ...], Doc("Interfaces (globs) whose subflows get the backup flag.")
    ] = ()
    order: Annotated[
        tuple[InterfaceGlob, ...],
        Doc(
            "Interfaces (globs) in the order in which their addresses are used where a cap has no room for "
            "all; those that none matches come last."
        ),
    ] = ()
    bind_interface: Annotated[
        BindInterface,
        AUTOMATIC,
        Doc(
            "Bind subflows to the interface of their address. `auto` does so where their packets would leave "
            "by another interface, unless that is a tunnel: a VPN is not bypassed. With `false` such pairs "
            "of addresses are not used; `true` binds all."
        ),
    ] = BindInterface.AUTO
    source_routing: Annotated[
        bool,
        Doc(
            "Keep a routing table for each interface and a rule (`from ADDRESS`) for each address, so that "
            "packets of every application leave by the interface of their source address. The service "
            "follows DHCP and router advertisements, and removes at exit what it made."
        ),
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    opens_per_second: Annotated[
        int,
        Ge(1),
        Le(100_000),
        Doc(
            "How many subflows are opened per second in all sessions together, on average and at once; what "
            "is beyond waits. The programs of the bpf datapath have `net.mptcp.bpf_open_rate` instead."
        ),
    ] = 200
    opens_per_session_per_second: Annotated[
        int,
        Ge(1),
        Le(1000),
        Doc(
            "How many subflows are opened per second in one session, on average. So many are opened at once, "
            "or what the path manager may open, if that is more."
        ),
    ] = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    after: Annotated[
        Duration,
        Doc(
            "Minimum age of a session before its first extra subflow; "
            "if `after_bytes` is set too, both must be reached."
        ),
    ] = 0.0
    after_bytes: Annotated[
        Size, Doc("Minimum number of bytes moved (both ways) before the first extra subflow.")
    ] = 0

    @property
    def waits(self) -> bool:
        """Whether a session has a threshold to reach."""
        return bool(self.after or self.after_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    max_subflows: Annotated[
        int | None,
        Ge(1),
        Le(255),
        Doc(
            "Refuse the peer's joins beyond this number of subflows, the initial one included. If it is not "
            "set, that is 8, or what the policy's own path manager may open, if that is more."
        ),
    ] = None
    # `from` is a Python keyword: see yaml_key.
    from_: Annotated[
        tuple[Network, ...] | None, Doc("Refuse joins from addresses outside these prefixes.")
    ] = None


def check_keepalive(key: str, seconds: float) -> None:
    if not 1 <= seconds <= KEEPALIVE_MAX_S or seconds != round(seconds):
        raise ValueError(f"`{key}` must be whole seconds, from 1s to {KEEPALIVE_MAX_S}s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    idle: Annotated[Duration, Doc("How long nothing came from the peer before the first probe.")] = 60.0
    interval: Annotated[Duration, Doc("Time between probes.")] = 10.0
    count: Annotated[
        int, Ge(1), Le(127), Doc("After so many probes without an answer the subflow is closed.")
    ] = 3

    def __post_init__(self) -> None:
        check_keepalive("idle", self.idle)
        check_keepalive("interval", self.interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    name: Annotated[
        str, NAME, Doc("Unique; letters, digits, `-`, `_` and `.`, starting with a letter or digit.")
    ]
    cgroup: Annotated[
        str,
        CGROUP_GLOB,
        Doc(
            "Glob below the cgroup2 root, starting with `/`: `*` and `?` match within one level, `[...]` "
            "matches one character of a set, `**` matches any number of levels. The descendants of a "
            "matched cgroup belong to the policy too, unless another policy matches closer to them. In a "
            "sidecar, `auto` is every cgroup that has a TCP socket in the network namespace, except the "
            "service's own."
        ),
    ]
    path_manager: Annotated[
        PathManagerChoice,
        Doc("A name (`none`), or a name with parameters (`{ndiffports: {subflows: 3}}`)."),
    ]
    start: Annotated[Start, Doc("When to open extra subflows: short connections need none.")] = field(
        default_factory=Start
    )
    announce: Annotated[bool, Doc("As a server, announce the local addresses to the peer (ADD_ADDR).")] = (
        False
    )
    accept: Annotated[Accept, Doc("Which of the peer's MP_JOINs to accept.")] = field(default_factory=Accept)
    keepalive: Annotated[
        Keepalive | None,
        OFF,
        Doc(
            "TCP keepalive of the subflows that this end opens, or `off`. It closes idle subflows whose path "
            "is dead. An application that sets SO_KEEPALIVE itself keeps its own values."
        ),
    ] = field(default_factory=Keepalive)
    options: Annotated[
        Options,
        Doc("TCP options on every TCP connection and MPTCP subflow of the cgroups (`docs/options.md`)."),
    ] = field(default_factory=Options)

    @property
    def accept_limit(self) -> int:
        """The number of subflows, the initial one included, beyond which the peer's joins are refused."""
        return self.accept.max_subflows or max(ACCEPT_DEFAULT, self.path_manager.max_subflows)


def session_rate(limits: Limits, policy: Policy) -> Rate:
    """How fast subflows of one session are opened: at once as many as the path manager may open."""
    per_second = limits.opens_per_session_per_second
    return Rate(per_second, max(per_second, policy.path_manager.max_subflows))
