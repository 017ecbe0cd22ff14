# SPDX-License-Identifier: GPL-2.0-only
"""A policy's TCP options as typed models (docs/options.md), and what both ends must agree on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le, MaxLen, MinLen
from typing_extensions import Doc

from pm.notation import IDENTIFIER, PATH, Check, Duration, Network, check_numbers
from pm.policies.built_in_options import ALGORITHMS_MAX, PLUGINS_MAX

USER_TIMEOUT_MAX_S = 0x7FFF * 60.0  # RFC 5482, section 3: 15 bits of minutes
PARAMETERS_MAX = 42  # OPTION_PARAMETER_BYTES / 8 (bpf_pm/include/option.h) less one that stays 0


def check_user_timeout(key: str, seconds: float) -> None:
    if not 1 <= seconds <= USER_TIMEOUT_MAX_S:
        raise ValueError(f"`{key}` must be from 1s to 32767min (RFC 5482)")


def check_parameters(parameters: dict[str, int]) -> None:
    check_numbers(parameters, bits=63, most=PARAMETERS_MAX)


PARAMETERS = Check("a mapping of names to whole numbers", check_parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTimeoutLimits:
    min: Annotated[Duration, Doc("L_LIMIT of RFC 5482: never a shorter timeout than this.")] = 100.0
    max: Annotated[Duration, Doc("U_LIMIT: never a longer one.")] = 600.0

    def __post_init__(self) -> None:
        check_user_timeout("min", self.min)
        check_user_timeout("max", self.max)
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
            check_user_timeout("advertise", self.advertise)


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
    name: Annotated[str, IDENTIFIER, Doc("Prefix of the functions in the file.")]
    source: Annotated[str, PATH, Doc("BPF C file; `docs/options.md` has an example.")]
    exid: Annotated[int, Ge(0), Le(65535), Doc("ExID of its option (RFC 6994).")]
    send: Annotated[bool, Doc("Write the option.")] = False
    accept: Annotated[bool, Doc("Heed the peer's.")] = False
    parameters: Annotated[
        dict[str, int],
        PARAMETERS,
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
    plugins: Annotated[tuple[OptionPlugin, ...], MaxLen(PLUGINS_MAX), Doc("Third parties' options.")] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exids:
    congestion_control: Annotated[int, Ge(0), Le(65535), Doc("0x4d43 by default.")] = 0x4D43
    initial_window: Annotated[int, Ge(0), Le(65535), Doc("0x4d49 by default.")] = 0x4D49
    delayed_ack: Annotated[int, Ge(0), Le(65535), Doc("0x4d44 by default.")] = 0x4D44


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpOptions:
    algorithms: Annotated[
        dict[str, Annotated[int, Ge(1), Le(255)]],
        Doc(f"Id on the wire of each congestion control, 1 to 255; at most {ALGORITHMS_MAX}."),
    ] = field(default_factory=lambda: {"reno": 1, "cubic": 2, "vegas": 3, "bbr": 4})
    exids: Annotated[
        Exids, Doc("Experiment ids of the options of kind 253 (RFC 6994); none of them is registered.")
    ] = field(default_factory=Exids)
