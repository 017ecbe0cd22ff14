# SPDX-License-Identifier: GPL-2.0-only
"""A policy's options as the entries of the option programs' maps. Pure."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pm.linux.bpf.classifier_maps import policy_id
from pm.linux.bpf.tcp_option_layouts import (
    BUILT_IN,
    PARAMETER_BYTES,
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
from pm.policies.model import Policy
from pm.policies.tcp_options import InitialWindow, OptionPlugin, Options, TcpOptions

KIND = "option plugin"  # what a third party's file is, in errors
KIND_USER_TIMEOUT = 28  # RFC 5482
KIND_EXPERIMENT = 253  # RFC 6994
EXID_LENGTH = 4  # kind, length and ExID: what bpf_load_hdr_opt is to compare
FRACTION_ONE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What this kernel has. ``congestion_control`` is the one of sockets that chose none."""

    congestion_control: str
    congestion_controls: frozenset[str]
    counts_segments: bool
    """TCP_BPF_DELACK_SEGS."""
    delayed_ack_least_us: int
    """The shortest that a delayed-ACK timer can be."""


class PolicyEntries(NamedTuple):
    """``plugins`` has a bit per slot; keys and values are bytes as in the maps."""

    plugins: int
    parameters: Mapping[bytes, bytes]
    prefixes: Mapping[bytes, bytes]


def third_parties(policies: Sequence[Policy]) -> list[ThirdParty]:
    """Those of all policies by name: the plugin at index i has slot ``len(BUILT_IN) + i``. Raises PmError."""
    plugins = (plugin for policy in policies for plugin in policy.options.plugins)
    return gather(KIND, ((p.name, p.source, p.parameters) for p in plugins))


def has_options(options: Options) -> bool:
    return options != Options()


def policy_entries(
    policy: Policy, agreement: TcpOptions, others: Sequence[ThirdParty], kernel: Kernel
) -> PolicyEntries:
    """``others`` as ``third_parties`` has them."""
    exids, options = agreement.exids, policy.options
    blocks: dict[str, OptionParameters] = {}
    prefixes: dict[bytes, bytes] = {}
    if uto := options.user_timeout:
        limits = uto.accept
        blocks["user_timeout"] = _block(
            UserTimeoutParameters(
                _ms(uto.advertise or 0), _ms(limits.min) if limits else 0, _ms(limits.max) if limits else 0
            ),
            sends=uto.advertise is not None,
            listens=limits is not None,
        )
    if cc := options.congestion_control:
        usable = kernel.congestion_controls.intersection(cc.accept)
        algorithms = [
            Algorithm(number, name in usable, name=name.encode())
            for name, number in agreement.algorithms.items()
        ]
        parameters = CongestionControlParameters(
            agreement.algorithms[cc.request] if cc.request else 0,
            len(algorithms),
            usual=kernel.congestion_control.encode(),
        )
        parameters.algorithms[: len(algorithms)] = algorithms
        blocks["congestion_control"] = _block(
            parameters, exids.congestion_control, cc.request is not None, bool(cc.accept)
        )
    if iw := options.initial_window:
        blocks["initial_window"] = _block(
            InitialWindowParameters(iw.request or 0, bool(iw.rules)),
            exids.initial_window,
            sends=iw.request is not None,
            listens=iw.accept is not None,
        )
        prefixes = _prefixes(policy.name, iw)
    if ack := options.delayed_ack:
        request = ack.request
        parameters_ = DelayedAckParameters(
            round(request.fraction * FRACTION_ONE) if request else 0,
            request.segments if request else 0,
            kernel.counts_segments,
            least_us=kernel.delayed_ack_least_us,
        )
        blocks["delayed_ack"] = _block(parameters_, exids.delayed_ack, request is not None, ack.accept)
    known = {other.name: other for other in others}
    for plugin in options.plugins:
        blocks[plugin.name] = _third_party_block(plugin, known[plugin.name])
    number = policy_id(policy.name)
    slots = {name: slot for slot, name in enumerate([*BUILT_IN, *known])}
    everything = PolicyParameters()
    for name, block in blocks.items():
        everything.slots[slots[name]] = block
    return PolicyEntries(
        plugins=sum(1 << slots[name] for name in blocks),
        parameters={bytes(ctypes.c_uint64(number)): bytes(everything)} if blocks else {},
        prefixes=prefixes,
    )


def unavailable(policy: Policy, kernel: Kernel) -> list[str]:
    """Congestion controls that the policy accepts and the kernel has not."""
    cc = policy.options.congestion_control
    return [name for name in cc.accept if name not in kernel.congestion_controls] if cc else []


def _block(
    parameters: ctypes.Structure | bytes, exid: int | None = None, sends: bool = False, listens: bool = False
) -> OptionParameters:
    block = OptionParameters(sends=sends, listens=listens)
    search = (
        bytes((KIND_USER_TIMEOUT, 0, 0, 0))
        if exid is None
        else struct.pack("!BBH", KIND_EXPERIMENT, EXID_LENGTH, exid)
    )
    block.search[:] = search
    raw = bytes(parameters)
    assert len(raw) <= PARAMETER_BYTES
    block.plugin[: len(raw)] = raw
    return block


def _third_party_block(plugin: OptionPlugin, other: ThirdParty) -> OptionParameters:
    values = [plugin.parameters.get(name, 0) for name in other.parameters]
    return _block(struct.pack(f"={len(values)}Q", *values), plugin.exid, plugin.send, plugin.accept)


def _prefixes(policy: str, options: InitialWindow) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    if options.accept:
        for network in options.accept.from_:
            found[_prefix_key(policy, PrefixKind.TRUSTED, network)] = _u32(options.accept.max)
    for rule in options.rules:
        found[_prefix_key(policy, PrefixKind.LOCAL, rule.to)] = _u32(rule.segments)
    return found


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
