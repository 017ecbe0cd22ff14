# SPDX-License-Identifier: GPL-2.0-only
"""The option programs in the kernel: one per policy and set of plugins, and the maps they share."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pm.linux.bpf import libbpf, third_party
from pm.linux.bpf.attachments import Attachments, netns_cookie, pin_directory
from pm.linux.bpf.classifier_maps import policy_id
from pm.linux.bpf.layouts import POLICY_ID_PLACEHOLDER
from pm.linux.bpf.objects import SOURCES
from pm.linux.bpf.tcp_option_layouts import (
    BUILT_IN,
    EVENTS_PER_SLOT,
    PLUGINS_PLACEHOLDER,
    OptionEvent,
    OptionRecord,
    OptionState,
)
from pm.linux.bpf.tcp_option_parameters import KIND, Kernel, PolicyEntries
from pm.linux.bpf.third_party import ThirdParty
from pm.linux.netlink.sock_diag import read_storages
from pm.policies.tcp_options import PARAMETERS_MAX

CLOCK_MONOTONIC_COARSE = 6  # include/uapi/linux/time.h: its resolution is a jiffy
SYSCTLS = Path("/proc/sys/net/ipv4")
JIFFY_NS = round(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9)


class ProgramName(NamedTuple):
    """What makes two programs the same. ``plugins``: a bit per slot, 0 only keeps outer policies away.

    ``compiled`` counts compilations.
    """

    policy: str
    plugins: int
    compiled: int

    def __str__(self) -> str:
        return f"{self.policy} {self.plugins} {self.compiled}"


class OptionPrograms(Attachments):
    """``attached`` has ``str(ProgramName)``. Made by ``OptionPrograms.open``."""

    link_prefix = "option-link-"
    entry = "options"

    def constants(self, name: str) -> Mapping[int, int]:
        policy, plugins, _ = name.split()
        return {POLICY_ID_PLACEHOLDER: policy_id(policy), PLUGINS_PLACEHOLDER: int(plugins)}

    def write(self, policies: Iterable[PolicyEntries]) -> None:
        """Parameters and prefixes of these policies and no others. Raises KernelRefused."""
        everything = list(policies)
        self.fill("parameters", [p.parameters for p in everything])
        self.fill("prefixes", [p.prefixes for p in everything])

    def counters(self, plugins: Sequence[str]) -> dict[str, dict[str, int]]:
        """Plugin -> event -> how often; ``plugins`` are names by slot."""
        values = (ctypes.c_uint64 * libbpf.possible_cpus())()
        totals: dict[str, dict[str, int]] = {}
        for slot, name in enumerate(plugins):
            totals[name] = {}
            for event in OptionEvent:
                libbpf.lookup(
                    self._maps["option_counters"], ctypes.c_uint32(slot * EVENTS_PER_SLOT + event), values
                )
                totals[name][event.name.lower()] = sum(values)
        return totals

    def records(self, ports: Collection[tuple[int, int]]) -> dict[int, OptionRecord]:
        """What happened on the sockets with one of these (local, remote) ports, by cookie (SO_COOKIE)."""
        return read_records(self._maps["states"], ports)


def read_records(states_fd: int, ports: Collection[tuple[int, int]]) -> dict[int, OptionRecord]:
    """``states_fd`` is the map of ``struct option_state``."""
    found = read_storages(states_fd, ports)
    return {cookie: OptionState.from_buffer_copy(value).record for cookie, value in found.items()}


def compiler_flags(others: Sequence[ThirdParty]) -> list[str]:
    """For bpf_pm/options.c: third parties' plugins, and where their parameters lie.

    Raises PmError for a third party's file that cannot be read or does not know a parameter.
    """
    return third_party.compiler_flags(
        KIND,
        "THIRD_PARTY_PLUGINS(X,...)",
        [f"X({slot},{other.name},__VA_ARGS__)" for slot, other in enumerate(others, len(BUILT_IN))],
        others,
        built_in=SOURCES / "option_parts/plugins.h",
        zero_place=PARAMETERS_MAX,
    )


def left_pinned(bpffs: Path | None) -> bool:
    """Whether an earlier service left option programs in this network namespace."""
    if not bpffs:
        return False
    return any(pin_directory(bpffs, netns_cookie()).glob(f"{OptionPrograms.link_prefix}*"))


def read_kernel(*, counts_segments: bool) -> Kernel:
    """The congestion controls of the calling thread's network namespace."""
    return Kernel(
        congestion_control=(SYSCTLS / "tcp_congestion_control").read_text().strip(),
        congestion_controls=frozenset((SYSCTLS / "tcp_available_congestion_control").read_text().split()),
        counts_segments=counts_segments,
        delayed_ack_least_us=2 * JIFFY_NS // 1000,
    )
