# SPDX-License-Identifier: GPL-2.0-only
"""The configuration as typed models: the one place for names, defaults, ranges and documentation.

Plain dataclasses, so that the service holds a configuration without loading the validator.
``pm.config.load`` validates YAML into them (pydantic), ``pm.config.schema`` derives the JSON
Schema and the reference from the same annotations. ``Doc`` texts are Markdown, one sentence or two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.config import checks
from pm.config.checks import IPNetwork
from pm.units import Duration, Notation, Size

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

InterfaceGlob = Annotated[str, checks.INTERFACE_GLOB]
Network = Annotated[
    IPNetwork,
    Notation("an IP prefix, such as `10.0.0.0/8`", "^[0-9A-Fa-f.:]+(/[0-9]+)?$", checks.parse_network, str),
]


def yaml_key(field_name: str) -> str:
    """The key of a field: without the underscore that keeps ``from_`` from being a Python keyword."""
    return field_name.rstrip("_")


class Datapath(StrEnum):
    AUTO = "auto"
    NETLINK = "netlink"
    BPF = "bpf"


class OnExit(StrEnum):
    DETACH = "detach"
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    cert: Annotated[str, checks.PATH, Doc("Certificate chain, PEM.")]
    key: Annotated[str, checks.PATH, Doc("Private key, PEM.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiTcp:
    listen: Annotated[str, checks.LISTEN, Doc("Address and port, `127.0.0.1:8642` or `[::1]:8642`.")]
    token_file: Annotated[
        str, checks.PATH, Doc("File whose first line is the bearer token, at least 16 characters.")
    ]
    tls: Annotated[Tls | None, Doc("Serve HTTPS; required unless `listen` is a loopback address.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    unix: Annotated[str, checks.SOCKET, Doc("Unix socket of the API, mode 0660; empty for none.")] = (
        "/run/mptcp-pm/api.sock"
    )
    tcp: Annotated[ApiTcp | None, Doc("Serve the API on TCP too, with a bearer token.")] = None


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


@dataclass(frozen=True, slots=True)
class PathManagerChoice:
    """A path manager by name with its parameters (an instance of that path manager's ``Parameters``)."""

    name: str
    parameters: Any

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pm.config.validate import path_manager_schema

        return path_manager_schema(handler)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    name: Annotated[
        str, checks.NAME, Doc("Unique; letters, digits, `-`, `_` and `.`, a letter or digit first.")
    ]
    cgroup: Annotated[
        str,
        checks.CGROUP_GLOB,
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
    # For pydantic: inherited by all dataclasses below. Strict, since 1 is not `true` and "3" not 3.
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "strict": True,
        "alias_generator": yaml_key,
    }

    datapath: Annotated[
        Datapath,
        Doc("`netlink` on a stock kernel, `bpf` on the patched one, `auto` picks the best there is."),
    ] = Datapath.AUTO
    api: Annotated[Api, Doc("Where REST is served.")] = field(default_factory=Api)
    addresses: Annotated[Addresses, Doc("Which local addresses path managers may use.")] = field(
        default_factory=Addresses
    )
    policies: Annotated[tuple[Policy, ...], Doc("Most specific cgroup wins; their order never matters.")] = ()
    on_exit: Annotated[
        OnExit, Doc("`detach` the classifiers at exit, or `keep` them for the next start.")
    ] = OnExit.DETACH
