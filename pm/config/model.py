# SPDX-License-Identifier: GPL-2.0-only
"""The configuration as typed models: the one place for names, defaults, ranges and documentation.

Plain dataclasses, so that the service holds a configuration without loading the validator.
``pm.config.load`` validates YAML into them (pydantic), ``pm.config.schema`` derives the JSON
Schema and the reference from the same annotations. ``Doc`` texts are Markdown, one sentence or two.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from annotated_types import Ge, Le, MinLen
from typing_extensions import Doc

from pm.units import Duration, Size

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Datapath(StrEnum):
    AUTO = "auto"
    NETLINK = "netlink"
    BPF = "bpf"


class OnExit(StrEnum):
    DETACH = "detach"
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    cert: Annotated[str, Doc("Certificate chain, PEM.")]
    key: Annotated[str, Doc("Private key, PEM.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiTcp:
    listen: Annotated[str, Doc("Address and port, `127.0.0.1:8642` or `[::1]:8642`.")]
    token_file: Annotated[str, Doc("File whose first line is the bearer token, at least 16 characters.")]
    tls: Annotated[Tls | None, Doc("Serve HTTPS; required unless `listen` is a loopback address.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    unix: Annotated[str, Doc("Unix socket of the API, mode 0660; empty for none.")] = "/run/mptcp-pm/api.sock"
    tcp: Annotated[ApiTcp | None, Doc("Serve the API on TCP too, with a bearer token.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    include: Annotated[tuple[str, ...], Doc("Interfaces (globs) whose addresses may be used.")] = ("*",)
    exclude: Annotated[tuple[str, ...], Doc("Interfaces (globs) never used; wins over `include`.")] = ()
    link_local: Annotated[bool, Doc("Use link-local addresses (169.254.0.0/16, fe80::/10) too.")] = False
    backup: Annotated[
        tuple[str, ...], Doc("Interfaces (globs) whose subflows get the backup flag.")
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    after: Annotated[
        Duration, Doc("Age of the session before the first extra subflow; with `after_bytes`, both must be reached.")
    ] = 0.0
    after_bytes: Annotated[
        Size, Doc("Bytes the session moved (both ways) before the first extra subflow.")
    ] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    max_subflows: Annotated[
        int | None, Ge(1), Le(255), Doc("Refuse the peer's joins above this many subflows, the initial one included.")
    ] = None
    # `from` is a Python keyword: the loader and the schema strip the underscore.
    from_: Annotated[
        tuple[IPNetwork, ...] | None, Doc("Refuse joins from addresses outside these prefixes.")
    ] = None


@dataclass(frozen=True, slots=True)
class PathManagerChoice:
    """A path manager by name with its parameters (an instance of that path manager's ``Parameters``)."""

    name: str
    parameters: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    name: Annotated[str, MinLen(1), Doc("Unique; letters, digits, `-`, `_` and `.`.")]
    cgroup: Annotated[
        str,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    datapath: Annotated[
        Datapath, Doc("`netlink` on a stock kernel, `bpf` on the patched one, `auto` picks the best there is.")
    ] = Datapath.AUTO
    api: Annotated[Api, Doc("Where REST is served.")] = field(default_factory=Api)
    addresses: Annotated[Addresses, Doc("Which local addresses path managers may use.")] = field(
        default_factory=Addresses
    )
    policies: Annotated[
        tuple[Policy, ...], Doc("Most specific cgroup wins; their order never matters.")
    ] = ()
    on_exit: Annotated[
        OnExit, Doc("`detach` the classifiers at exit, or `keep` them for the next start.")
    ] = OnExit.DETACH
