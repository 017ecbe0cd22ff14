# SPDX-License-Identifier: Apache-2.0
"""A policy's TCP options as entries of the option programs' maps. Pure."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pm.linux.bpf.classifier_maps import policy_id
from pm.linux.bpf.tcp_option_layouts import (
    BUILT_IN,
    PREFIX_FIXED_BITS,
    Algorithm,
    CongestionControlParameters,
    DelayedAckParameters,
    InitialWindowParameters,
    OptionParameters,
    PolicyParameters,
    PrefixKey,
    PrefixKind,
    UserTimeoutParameters,
)
from pm.linux.bpf.third_party import ThirdParty, gather
from pm.linux.ip import packed_ip
from pm.notation import IPNetwork
from pm.policies.built_in_options import BUILT_IN_OPTIONS, KIND_EXPERIMENT
from pm.policies.model import Policy
from pm.policies.tcp_options import (
    CongestionControl,
    DelayedAck,
    InitialWindow,
    OptionPlugin,
    Options,
    TcpOptions,
    UserTimeout,
)

KIND = "option plugin"  # what a third party's file is, in errors
EXID_LENGTH = 4  # kind, length and ExID: what bpf_load_hdr_opt is to compare
FRACTION_ONE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelOptionSupport:
    """What this kernel supports."""

    congestion_control: str
    """The congestion control of sockets that chose none."""
    congestion_controls: frozenset[str]
    counts_segments: bool
    """The kernel has TCP_BPF_DELACK_SEGS."""
    delayed_ack_least_us: int
    """The shortest delayed-ACK timer that the kernel can set, in microseconds."""


class PolicyEntries(NamedTuple):
    """A policy in the maps: keys and values are their bytes, ``plugins`` has a bit per slot."""

    plugins: int
    parameters: Mapping[bytes, bytes]
    prefixes: Mapping[bytes, bytes]


def third_parties_of(policies: Sequence[Policy]) -> list[ThirdParty]:
    """The third parties' plugins of all policies, by name: the one at index i has slot len(BUILT_IN) + i.

    Raises PmError.
    """
    plugins = (plugin for policy in policies for plugin in policy.options.plugins)
    return gather(KIND, ((p.name, p.source, p.parameters) for p in plugins))


def has_options(options: Options) -> bool:
    """Whether any option is configured."""
    return options != Options()


def policy_entries(
    policy: Policy, tcp_options: TcpOptions, third_parties: Sequence[ThirdParty], kernel: KernelOptionSupport
) -> PolicyEntries:
    """What the maps have for a policy.

    ``third_parties`` is what ``third_parties_of`` gives for all policies.
    """
    options = policy.options
    blocks = _built_in_blocks(options, tcp_options, kernel)
    known = {other.name: other for other in third_parties}
    for plugin in options.plugins:
        blocks[plugin.name] = _third_party_block(plugin, known[plugin.name])
    slots = {name: slot for slot, name in enumerate([*BUILT_IN, *known])}
    parameters = PolicyParameters()
    for name, block in blocks.items():
        parameters.slots[slots[name]] = block
    return PolicyEntries(
        plugins=sum(1 << slots[name] for name in blocks),
        parameters={bytes(ctypes.c_uint64(policy_id(policy.name))): bytes(parameters)} if blocks else {},
        prefixes=_prefixes(policy.name, options.initial_window) if options.initial_window else {},
    )


def unavailable(policy: Policy, kernel: KernelOptionSupport) -> list[str]:
    """Congestion controls that the policy accepts and the kernel does not have."""
    cc = policy.options.congestion_control
    return [name for name in cc.accept if name not in kernel.congestion_controls] if cc else []


def _user_timeout(
    option: UserTimeout, tcp_options: TcpOptions, kernel: KernelOptionSupport
) -> ctypes.Structure:
    limits = option.accept
    return UserTimeoutParameters(
        advertised_ms=_ms(option.advertise or 0),
        lower_ms=_ms(limits.min) if limits else 0,
        upper_ms=_ms(limits.max) if limits else 0,
    )


def _congestion_control(
    option: CongestionControl, tcp_options: TcpOptions, kernel: KernelOptionSupport
) -> ctypes.Structure:
    ids = tcp_options.algorithms
    usable = kernel.congestion_controls.intersection(option.accept)
    parameters = CongestionControlParameters(
        requested=ids[option.request] if option.request else 0,
        count=len(ids),
        usual=kernel.congestion_control.encode(),
    )
    parameters.algorithms[: len(ids)] = [
        Algorithm(id=number, allowed=name in usable, name=name.encode()) for name, number in ids.items()
    ]
    return parameters


def _initial_window(
    option: InitialWindow, tcp_options: TcpOptions, kernel: KernelOptionSupport
) -> ctypes.Structure:
    return InitialWindowParameters(requested=option.request or 0, has_rules=bool(option.rules))


def _delayed_ack(
    option: DelayedAck, tcp_options: TcpOptions, kernel: KernelOptionSupport
) -> ctypes.Structure:
    request = option.request
    return DelayedAckParameters(
        fraction=round(request.fraction * FRACTION_ONE) if request else 0,
        segments=request.segments if request else 0,
        counts_segments=kernel.counts_segments,
        least_us=kernel.delayed_ack_least_us,
    )


BUILDERS: Mapping[str, Callable[[Any, TcpOptions, KernelOptionSupport], ctypes.Structure]] = {
    "user_timeout": _user_timeout,
    "congestion_control": _congestion_control,
    "initial_window": _initial_window,
    "delayed_ack": _delayed_ack,
}
"""Builder of the parameters of each built-in option, from the option's model."""


def _built_in_blocks(
    options: Options, tcp_options: TcpOptions, kernel: KernelOptionSupport
) -> dict[str, OptionParameters]:
    blocks = {}
    for declared in BUILT_IN_OPTIONS:
        option = getattr(options, declared.name)
        if option is None:
            continue
        if declared.kind == KIND_EXPERIMENT:
            search = _experiment(getattr(tcp_options.exids, declared.name))
        else:
            search = bytes((declared.kind, 0, 0, 0))
        blocks[declared.name] = _block(
            BUILDERS[declared.name](option, tcp_options, kernel),
            search=search,
            sends=getattr(option, declared.sent_for) is not None,
            listens=bool(option.accept),
        )
    return blocks


def _third_party_block(plugin: OptionPlugin, other: ThirdParty) -> OptionParameters:
    values = [plugin.parameters.get(name, 0) for name in other.parameters]
    return _block(
        struct.pack(f"={len(values)}Q", *values),
        search=_experiment(plugin.exid),
        sends=plugin.send,
        listens=plugin.accept,
    )


def _block(
    parameters: ctypes.Structure | bytes, *, search: bytes, sends: bool, listens: bool
) -> OptionParameters:
    """Raises ValueError for parameters longer than PARAMETER_BYTES."""
    block = OptionParameters(sends=sends, listens=listens)
    block.search[:] = search
    raw = bytes(parameters)
    block.plugin[: len(raw)] = raw
    return block


def _experiment(exid: int) -> bytes:
    """The first bytes of an option with an ExID, by which the kernel finds it."""
    return struct.pack("!BBH", KIND_EXPERIMENT, EXID_LENGTH, exid)


def _prefixes(policy: str, option: InitialWindow) -> dict[bytes, bytes]:
    prefixes: dict[bytes, bytes] = {}
    if option.accept:
        for network in option.accept.from_:
            prefixes[_prefix_key(policy, PrefixKind.TRUSTED, network)] = _u32(option.accept.max)
    for rule in option.rules:
        prefixes[_prefix_key(policy, PrefixKind.LOCAL, rule.to)] = _u32(rule.segments)
    return prefixes


def _prefix_key(policy: str, kind: PrefixKind, network: IPNetwork) -> bytes:
    bits = network.prefixlen + (96 if network.version == 4 else 0)
    number = policy_id(policy)
    key = PrefixKey(PREFIX_FIXED_BITS + bits, kind)
    key.policy[:] = (number & 0xFFFFFFFF, number >> 32)
    key.ip[:] = packed_ip(str(network.network_address))
    return bytes(key)


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
