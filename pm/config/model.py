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

from annotated_types import Ge, Le, MaxLen, MinLen
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


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTimeoutLimits:
    min: Annotated[Duration, Doc("L_LIMIT of RFC 5482: never a shorter timeout than this.")] = 100.0
    max: Annotated[Duration, Doc("U_LIMIT: never a longer one.")] = 600.0

    def __post_init__(self) -> None:
        checks.check_user_timeout("min", self.min)
        checks.check_user_timeout("max", self.max)
        if self.min > self.max:
            raise ValueError("`min` is longer than `max`: exchange them")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTimeout:
    advertise: Annotated[
        Duration | None, Doc("Tell the peer that this end keeps unacknowledged data for so long, and do it.")
    ] = None
    accept: Annotated[
        UserTimeoutLimits | None,
        Doc("Adopt the peer's timeout within these limits, unless the application set its own."),
    ] = None

    def __post_init__(self) -> None:
        if self.advertise is not None:
            checks.check_user_timeout("advertise", self.advertise)


@dataclass(frozen=True, slots=True, kw_only=True)
class CongestionControl:
    request: Annotated[str | None, Doc("Ask the peer to use this algorithm (a key of `tcp_options`).")] = None
    accept: Annotated[
        tuple[str, ...], Doc("Algorithms that the peer may ask for; those this kernel has not are refused.")
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWindowLimits:
    max: Annotated[int, Ge(1), Le(1000), Doc("Largest window, in segments; what is above is cut.")]
    # `from` is a Python keyword: see yaml_key.
    from_: Annotated[tuple[Network, ...], MinLen(1), Doc("Peers in these prefixes are trusted, no others.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWindowRule:
    to: Annotated[Network, Doc("Destination.")]
    segments: Annotated[int, Ge(1), Le(1000), Doc("Initial congestion window towards it.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWindow:
    request: Annotated[
        int | None, Ge(1), Le(1000), Doc("Ask the peer to start with this window, in segments.")
    ] = None
    accept: Annotated[InitialWindowLimits | None, Doc("Heed the peer's request.")] = None
    rules: Annotated[
        tuple[InitialWindowRule, ...],
        Doc("This end's window by destination, the longest prefix wins; nothing is sent for it."),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedAckRequest:
    fraction: Annotated[float, Ge(1 / 64), Le(3.98), Doc("Longest delay of an ACK, of the minimum RTT.")]
    segments: Annotated[
        int, Ge(0), Le(64), Doc("An ACK at once after so many full segments; 0: as the kernel does.")
    ] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedAck:
    request: Annotated[DelayedAckRequest | None, Doc("Ask the peer to delay its ACKs so.")] = None
    accept: Annotated[bool, Doc("Heed the peer's request.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionPlugin:
    name: Annotated[str, checks.IDENTIFIER, Doc("Prefix of the functions in the file.")]
    source: Annotated[str, checks.PATH, Doc("BPF C file; `docs/options.md` has an example.")]
    exid: Annotated[int, Ge(0), Le(65535), Doc("ExID of its option (RFC 6994).")]
    send: Annotated[bool, Doc("Write the option.")] = False
    accept: Annotated[bool, Doc("Heed the peer's.")] = False
    parameters: Annotated[
        dict[str, int],
        checks.PARAMETERS,
        Doc("Whole numbers by name; the file reads them with `PARAMETER`."),
    ] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    user_timeout: Annotated[UserTimeout | None, Doc("TCP User Timeout (RFC 5482).")] = None
    congestion_control: Annotated[
        CongestionControl | None, Doc("Which congestion control the sender of data uses.")
    ] = None
    initial_window: Annotated[InitialWindow | None, Doc("Initial congestion window.")] = None
    delayed_ack: Annotated[DelayedAck | None, Doc("How long ACKs are delayed.")] = None
    plugins: Annotated[tuple[OptionPlugin, ...], MaxLen(4), Doc("Third parties' options.")] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exids:
    congestion_control: Annotated[int, Ge(0), Le(65535), Doc("0x4d43 by default.")] = 0x4D43
    initial_window: Annotated[int, Ge(0), Le(65535), Doc("0x4d49 by default.")] = 0x4D49
    delayed_ack: Annotated[int, Ge(0), Le(65535), Doc("0x4d44 by default.")] = 0x4D44


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpOptions:
    algorithms: Annotated[
        dict[str, Annotated[int, Ge(1), Le(255)]],
        Doc("Id on the wire of each congestion control, 1 to 255; at most 16."),
    ] = field(default_factory=lambda: {"reno": 1, "cubic": 2, "vegas": 3, "bbr": 4})
    exids: Annotated[
        Exids, Doc("Experiment ids of the options of kind 253 (RFC 6994); none of them is registered.")
    ] = field(default_factory=Exids)


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
    options: Annotated[
        Options,
        Doc("TCP options, on every TCP connection and MPTCP subflow of the cgroups (`docs/options.md`)."),
    ] = field(default_factory=Options)


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
    tcp_options: Annotated[TcpOptions, Doc("What both ends of TCP options must agree on.")] = field(
        default_factory=TcpOptions
    )
    policies: Annotated[tuple[Policy, ...], Doc("Most specific cgroup wins; their order never matters.")] = ()
    on_exit: Annotated[
        OnExit, Doc("`detach` the classifiers at exit, or `keep` them for the next start.")
    ] = OnExit.DETACH
