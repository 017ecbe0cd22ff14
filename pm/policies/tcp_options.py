# SPDX-License-Identifier: Apache-2.0
"""A policy's TCP options as typed models (docs/options.md), and the settings that both ends share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le, MaxLen, MinLen
from typing_extensions import Doc

from pm.notation import IDENTIFIER, PATH, Check, Duration, Network, check_numbers
from pm.policies.built_in_options import ALGORITHMS_MAX, PLUGINS_MAX

USER_TIMEOUT_MAX_S = 0x7FFF * 60.0  # RFC 5482, section 3: 15 bits of minutes
USER_TIMEOUT_LOWER_S, USER_TIMEOUT_UPPER_S = 100.0, 600.0
PARAMETERS_MAX = 42  # OPTION_PARAMETER_BYTES / 8 (bpf_pm/include/option.h) less one that stays 0


def check_user_timeout(key: str, seconds: float) -> None:
    if not 1 <= seconds <= USER_TIMEOUT_MAX_S:
        raise ValueError(f"`{key}` must be from 1s to 32767min (RFC 5482)")


def check_parameters(parameters: dict[str, int]) -> None:
    check_numbers(parameters, bits=63, most=PARAMETERS_MAX)


PARAMETERS = Check("a mapping of names to whole numbers", check_parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTimeoutLimits:
    min: Annotated[Duration, Doc("Shortest timeout to adopt (L_LIMIT of RFC 5482).")] = USER_TIMEOUT_LOWER_S
    max: Annotated[Duration, Doc("Longest timeout to adopt (U_LIMIT).")] = USER_TIMEOUT_UPPER_S

    def __post_init__(self) -> None:
        check_user_timeout("min", self.min)
        check_user_timeout("max", self.max)
        if self.min <= self.max:
            return
        # The other one may not be in the file at all.
        if self.min == USER_TIMEOUT_LOWER_S:
            raise ValueError("`max` is below `min`, which is 100s if it is not set: set a lower `min` too")
        if self.max == USER_TIMEOUT_UPPER_S:
            raise ValueError("`min` is above `max`, which is 10min if it is not set: set a higher `max` too")
        raise ValueError("`min` is greater than `max`: swap them")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTimeout:
    advertise: Annotated[
        Duration | None, Doc("Timeout to advertise; also set as this end's own TCP_USER_TIMEOUT.")
    ] = None
    accept: Annotated[
        UserTimeoutLimits | None,
        Doc("Adopt the peer's timeout within these limits, unless the application set its own."),
    ] = None

    def __post_init__(self) -> None:
        if self.advertise is not None:
            check_user_timeout("advertise", self.advertise)


@dataclass(frozen=True, slots=True, kw_only=True)
class CongestionControl:
    request: Annotated[str | None, Doc("Ask the peer to use this algorithm (a key of `tcp_options`).")] = None
    accept: Annotated[
        tuple[str, ...],
        Doc("Algorithms that the peer may ask for; those that this kernel does not have are refused."),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWindowLimits:
    max: Annotated[int, Ge(1), Le(1000), Doc("Upper limit in segments; larger requests are clamped.")]
    # `from` is a Python keyword: see yaml_key.
    from_: Annotated[tuple[Network, ...], MinLen(1), Doc("Only peers in these prefixes are trusted.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWindowRule:
    to: Annotated[Network, Doc("Destination prefix.")]
    segments: Annotated[
        int, Ge(1), Le(1000), Doc("Initial congestion window towards this destination, in segments.")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWindow:
    request: Annotated[
        int | None, Ge(1), Le(1000), Doc("Ask the peer to start with this congestion window, in segments.")
    ] = None
    accept: Annotated[InitialWindowLimits | None, Doc("Honour the peer's request, within limits.")] = None
    rules: Annotated[
        tuple[InitialWindowRule, ...],
        Doc("This end's own window by destination; the longest prefix wins, and no option is sent."),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedAckRequest:
    fraction: Annotated[
        float, Ge(1 / 64), Le(3.98), Doc("Longest delay of an ACK, as a fraction of the minimum RTT.")
    ]
    segments: Annotated[
        int,
        Ge(0),
        Le(64),
        Doc("Acknowledge immediately after this many full-sized segments; 0 keeps the kernel's default."),
    ] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedAck:
    request: Annotated[DelayedAckRequest | None, Doc("Ask the peer to delay its ACKs.")] = None
    accept: Annotated[bool, Doc("Honour the peer's request.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionPlugin:
    name: Annotated[str, IDENTIFIER, Doc("Prefix of the functions in the file.")]
    source: Annotated[str, PATH, Doc("BPF C file; `docs/options.md` shows an example.")]
    exid: Annotated[int, Ge(0), Le(65535), Doc("ExID of the plugin's option (RFC 6994).")]
    send: Annotated[bool, Doc("Send the option.")] = False
    accept: Annotated[bool, Doc("Honour the peer's option.")] = False
    parameters: Annotated[
        dict[str, int],
        PARAMETERS,
        Doc("Whole numbers by name; the C file reads them with `PARAMETER`."),
    ] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    user_timeout: Annotated[UserTimeout | None, Doc("TCP User Timeout (RFC 5482).")] = None
    congestion_control: Annotated[
        CongestionControl | None, Doc("Which congestion control the sender of data uses.")
    ] = None
    initial_window: Annotated[InitialWindow | None, Doc("Initial congestion window.")] = None
    delayed_ack: Annotated[DelayedAck | None, Doc("How long the peer delays its ACKs.")] = None
    plugins: Annotated[tuple[OptionPlugin, ...], MaxLen(PLUGINS_MAX), Doc("Options of third parties.")] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exids:
    congestion_control: Annotated[int, Ge(0), Le(65535), Doc("0x4d43 by default.")] = 0x4D43
    initial_window: Annotated[int, Ge(0), Le(65535), Doc("0x4d49 by default.")] = 0x4D49
    delayed_ack: Annotated[int, Ge(0), Le(65535), Doc("0x4d44 by default.")] = 0x4D44


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpOptions:
    algorithms: Annotated[
        dict[str, Annotated[int, Ge(1), Le(255)]],
        Doc(f"Id of each congestion control on the wire, 1 to 255; at most {ALGORITHMS_MAX} of them."),
    ] = field(default_factory=lambda: {"reno": 1, "cubic": 2, "vegas": 3, "bbr": 4})
    exids: Annotated[
        Exids, Doc("Experiment ids of the options of kind 253 (RFC 6994); none of them is registered.")
    ] = field(default_factory=Exids)
