# SPDX-License-Identifier: GPL-2.0-only
"""The configuration as typed models: the one place for names, defaults, ranges and documentation.

Plain dataclasses, so that the service holds a configuration without loading the validator.
``pm.config.load`` validates YAML into them (pydantic), ``pm.config.schema`` derives the JSON
Schema and the reference from the same annotations. ``Doc`` texts are Markdown, one sentence or two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from typing_extensions import Doc

from pm.config import checks
from pm.notation import PATH, yaml_key
from pm.policies.model import Addresses, Policy
from pm.policies.tcp_options import TcpOptions


class Datapath(StrEnum):
    AUTO = "auto"
    NETLINK = "netlink"
    BPF = "bpf"


class OnExit(StrEnum):
    DETACH = "detach"
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    cert: Annotated[str, PATH, Doc("Certificate chain, PEM.")]
    key: Annotated[str, PATH, Doc("Private key, PEM.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiTcp:
    listen: Annotated[str, checks.LISTEN, Doc("Address and port, `127.0.0.1:8642` or `[::1]:8642`.")]
    token_file: Annotated[
        str, PATH, Doc("File whose first line is the bearer token, at least 16 characters.")
    ]
    tls: Annotated[Tls | None, Doc("Serve HTTPS; required unless `listen` is a loopback address.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    unix: Annotated[str, checks.SOCKET, Doc("Unix socket of the API, mode 0660; empty for none.")] = (
        "/run/mptcp-pm/api.sock"
    )
    tcp: Annotated[ApiTcp | None, Doc("Serve the API on TCP too, with a bearer token.")] = None


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
