# SPDX-License-Identifier: Apache-2.0
"""The configuration as typed models: the one place for names, defaults, ranges and documentation.

Policies are in ``pm.policies``. The models are plain dataclasses: the service holds a configuration
without loading the validator. ``pm.config.load`` validates YAML into them (pydantic), and
``pm.config.schema`` derives the JSON Schema and the reference from the same annotations. ``Doc``
texts are Markdown, one sentence or two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from typing_extensions import Doc

from pm.config import checks
from pm.notation import PATH, Size, yaml_key
from pm.policies.model import Addresses, Limits, Policy
from pm.policies.remote_addresses import RemoteAddresses
from pm.policies.tcp_options import TcpOptions


class Datapath(StrEnum):
    AUTO = "auto"
    NETLINK = "netlink"
    BPF = "bpf"


class SelectionMode(StrEnum):
    AUTO = "auto"
    CGROUP = "cgroup"
    NAMESPACE = "namespace"


class OnExit(StrEnum):
    DETACH = "detach"
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    cert: Annotated[str, PATH, Doc("File with the certificate chain (PEM).")]
    key: Annotated[str, PATH, Doc("File with the private key (PEM).")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiTcp:
    listen: Annotated[
        str, checks.LISTEN, Doc("IP address and port, such as `127.0.0.1:8642` or `[::1]:8642`.")
    ]
    token_file: Annotated[
        str, PATH, Doc("File whose first line is the bearer token, at least 16 characters long.")
    ]
    tls: Annotated[Tls | None, Doc("Serve HTTPS; required unless `listen` is a loopback address.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiProbes:
    listen: Annotated[str, checks.LISTEN, Doc("IP address and port, such as `0.0.0.0:9464` or `[::]:9464`.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    unix: Annotated[str, checks.SOCKET, Doc("Unix socket of the API, mode 0660; empty for none.")] = (
        "/run/mptcp-pm/api.sock"
    )
    tcp: Annotated[ApiTcp | None, Doc("Also serve the API over TCP, with a bearer token.")] = None
    probes: Annotated[
        ApiProbes | None,
        Doc(
            "Also serve `/healthz`, `/readyz` and `/metrics`, and nothing else, over plain HTTP without a "
            "token: for Kubernetes and Prometheus. Whoever can connect can read them."
        ),
    ] = None


class RecordsTo(StrEnum):
    FILE = "file"
    JOURNALD = "journald"
    STDOUT = "stdout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    to: Annotated[RecordsTo, Doc("Standard output has nothing else: logs go to standard error.")]
    path: Annotated[str, PATH, Doc("For `file`: it has mode 0640, its directory must be there.")] = (
        "/var/log/mptcp-pm/sessions.jsonl"
    )
    max_size: Annotated[
        Size, Ge(64 << 10), Doc("For `file`: a new one is begun then, the former is kept as `PATH.1`.")
    ] = 100 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    # For pydantic; it applies to all models. Strict, since 1 is not `true` and "3" is not 3.
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "strict": True,
        "alias_generator": yaml_key,
    }

    datapath: Annotated[
        Datapath,
        Doc("`netlink` for any kernel, `bpf` for the patched one; `auto` picks the better one available."),
    ] = Datapath.AUTO
    selection: Annotated[
        SelectionMode,
        Doc(
            "How a session's policy is found. `cgroup`: by the cgroup of its socket. `namespace`: the policy "
            "for `/` owns every session of the network namespace; needs neither cgroups nor CAP_BPF, and has "
            "no TCP options. `auto` is `cgroup` where other cgroups than the service's own are visible."
        ),
    ] = SelectionMode.AUTO
    api: Annotated[Api, Doc("Where the REST API is served.")] = field(default_factory=Api)
    addresses: Annotated[Addresses, Doc("Which local addresses path managers may use.")] = field(
        default_factory=Addresses
    )
    remote_addresses: Annotated[
        RemoteAddresses,
        Doc(
            "Which of the addresses that a peer announces subflows may go to. Never to this host's own, nor "
            "to loopback, multicast and broadcast addresses; to link-local ones only in link-local sessions."
        ),
    ] = field(default_factory=RemoteAddresses)
    limits: Annotated[Limits, Doc("How fast subflows are opened: a peer says where their SYNs go.")] = field(
        default_factory=Limits
    )
    tcp_options: Annotated[TcpOptions, Doc("TCP-option settings on which both ends must agree.")] = field(
        default_factory=TcpOptions
    )
    policies: Annotated[
        tuple[Policy, ...], Doc("The most specific cgroup wins; the order of policies never matters.")
    ] = ()
    records: Annotated[
        Records | None,
        Doc("Write a line of JSON at the end of each session; see [records.md](records.md)."),
    ] = None
    on_exit: Annotated[
        OnExit, Doc("At exit, `detach` the BPF programs, or `keep` them for the next start.")
    ] = OnExit.DETACH
