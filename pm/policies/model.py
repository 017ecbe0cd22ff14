# SPDX-License-Identifier: GPL-2.0-only
"""A policy and its parts as typed models.

The one place for their names, defaults, ranges and documentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.notation import Check, Duration, Network, Size
from pm.path_managers.choice import PathManagerChoice
from pm.policies.globs import split_glob
from pm.policies.tcp_options import Options

_INTERFACE_NAME_MAX = 15  # IFNAMSIZ - 1, include/uapi/linux/if.h
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


def check_name(text: str) -> None:
    if not re.fullmatch(_NAME, text):
        raise ValueError(
            f"{text!r} is not a name: use 1 to 64 letters, digits, `-`, `_` and `.`, a letter or digit first"
        )


def check_interface_glob(text: str) -> None:
    if not text or re.search(r"[\x00-\x20/\x7f]", text):
        raise ValueError(f"{text!r} is not an interface: write a name or a glob such as 'eth*'")
    if re.search(r"\[(?!!?.[^\]]*\])", text):
        raise ValueError(f"bad glob: `[` is not closed in `{text}`: add `]`")
    if not re.search(r"[*?[]", text) and len(text.encode()) > _INTERFACE_NAME_MAX:
        raise ValueError(
            f"`{text}` is too long: interface names have at most {_INTERFACE_NAME_MAX} characters"
        )


CGROUP_GLOB = Check("a cgroup glob, such as `/system.slice/nginx.service`", split_glob, "^/")
NAME = Check("a name", check_name, f"^{_NAME}$")
INTERFACE_GLOB = Check("an interface name or glob", check_interface_glob, r"^[^\s/]+$")

InterfaceGlob = Annotated[str, INTERFACE_GLOB]


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    include: Annotated[tuple[InterfaceGlob, ...], Doc("Interfaces (globs) whose addresses may be used.")] = (
        "*",
    )
    exclude: Annotated[
        tuple[InterfaceGlob, ...], Doc("Interfaces (globs) never used; wins over `include`.")
    ] = ()
    link_local: Annotated[bool, Doc("Use link-local addresses (169.254.0.0/16, fe80::/10) too.")] = False
    backup: Annotated[
        tuple[InterfaceGlob, ...], Doc("Interfaces (globs) whose subflows get the backup flag.")
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    after: Annotated[
        Duration,
        Doc("Age of the session before the first extra subflow; with `after_bytes`, both must be reached."),
    ] = 0.0
    after_bytes: Annotated[
        Size, Doc("Bytes the session moved (both ways) before the first extra subflow.")
    ] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    max_subflows: Annotated[
        int | None,
        Ge(1),
        Le(255),
        Doc("Refuse the peer's joins above this many subflows, the initial one included."),
    ] = None
    # `from` is a Python keyword: see yaml_key.
    from_: Annotated[
        tuple[Network, ...] | None, Doc("Refuse joins from addresses outside these prefixes.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    name: Annotated[str, NAME, Doc("Unique; letters, digits, `-`, `_` and `.`, a letter or digit first.")]
    cgroup: Annotated[
        str,
        CGROUP_GLOB,
        Doc(
            "Glob below the cgroup2 root, `/` first: `*` and `?` within one level, `[...]` sets, "
            "`**` any number of levels. A matched cgroup's descendants belong to the policy too, "
            "unless a more specific policy matches them."
        ),
    ]
    path_manager: Annotated[
        PathManagerChoice,
        Doc("A name (`none`), or a name with its parameters (`{ndiffports: {subflows: 3}}`)."),
    ]
    start: Annotated[Start, Doc("Leave short connections alone.")] = field(default_factory=Start)
    announce: Annotated[bool, Doc("On the server's side, announce our addresses (ADD_ADDR).")] = False
    accept: Annotated[Accept, Doc("Which joins of the peer are let in.")] = field(default_factory=Accept)
    options: Annotated[
        Options,
        Doc("TCP options, on every TCP connection and MPTCP subflow of the cgroups (`docs/options.md`)."),
    ] = field(default_factory=Options)
