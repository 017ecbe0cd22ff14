# SPDX-License-Identifier: Apache-2.0
"""The option programs in the kernel: one per policy and set of plugins, and the maps they share."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pm.linux.bpf import libbpf, third_party
from pm.linux.bpf.attachments import Attachments
from pm.linux.bpf.classifier_maps import policy_id
from pm.linux.bpf.layouts import POLICY_ID_PLACEHOLDER
from pm.linux.bpf.objects import SOURCES
from pm.linux.bpf.pins import pin_directory
from pm.linux.bpf.tcp_option_layouts import (
    BUILT_IN,
    EVENTS_PER_SLOT,
    PLUGINS_PLACEHOLDER,
    OptionEvent,
    OptionRecord,
    OptionState,
)
from pm.linux.bpf.tcp_option_parameters import KIND, KernelOptionSupport, PolicyEntries
from pm.linux.bpf.third_party import ThirdParty
from pm.linux.host.netns import netns_cookie
from pm.linux.netlink.sock_diag import read_storages
from pm.policies.tcp_options import PARAMETERS_MAX

CLOCK_MONOTONIC_COARSE = 6  # include/uapi/linux/time.h: its resolution is a jiffy
SYSCTLS = Path("/proc/sys/net/ipv4")


class ProgramKey(NamedTuple):
    """What makes two programs the same.

    ``plugins`` has a bit per slot; a program with 0 only keeps outer policies away. ``sources`` is the
    digest of what the program was compiled from.
    """

    policy: str
    plugins: int
    sources: str


class TcpOptionAttachments(Attachments[ProgramKey]):
    """The option programs and their maps. Made by ``TcpOptionAttachments.open``."""

    link_prefix = "option-link-"
    entry = "options"
    layout = ("include/option.h", "option_parts/maps.h")

    def constants(self, key: ProgramKey) -> Mapping[int, int]:
        return {POLICY_ID_PLACEHOLDER: policy_id(key.policy), PLUGINS_PLACEHOLDER: key.plugins}

    def write(self, policies: Collection[PolicyEntries]) -> None:
        """Parameters and prefixes of these policies and no others. Raises KernelRefused."""
        self.fill("parameters", [p.parameters for p in policies])
        self.fill("prefixes", [p.prefixes for p in policies])

    def counters(self, plugins: Sequence[str]) -> dict[str, dict[str, int]]:
        """Plugin -> event -> how often; ``plugins`` are names by slot."""
        fd = self._maps["option_counters"]
        return {
            name: {e.name.lower(): libbpf.read_counter(fd, slot * EVENTS_PER_SLOT + e) for e in OptionEvent}
            for slot, name in enumerate(plugins)
        }

    def records(self, ports: Collection[tuple[int, int]]) -> dict[int, OptionRecord]:
        """What happened on the sockets with one of these (local, remote) ports, by cookie (SO_COOKIE)."""
        return read_records(self._maps["states"], ports)


def read_records(states_fd: int, ports: Collection[tuple[int, int]]) -> dict[int, OptionRecord]:
    """As ``TcpOptionAttachments.records``; ``states_fd`` is the map of ``struct option_state``."""
    storages = read_storages(states_fd, ports)
    return {cookie: OptionState.from_buffer_copy(value).record for cookie, value in storages.items()}


def compiler_flags(third_parties: Sequence[ThirdParty]) -> list[str]:
    """For bpf_pm/options.c: third parties' plugins, and where their parameters lie.

    Raises PmError for a third party's file that cannot be read or does not know a parameter.
    """
    return third_party.compiler_flags(
        KIND,
        "THIRD_PARTY_PLUGINS(X,...)",
        [f"X({slot},{other.name},__VA_ARGS__)" for slot, other in enumerate(third_parties, len(BUILT_IN))],
        third_parties,
        built_in=SOURCES / "option_parts/plugins.h",
        functions=("start", "compose", "receive"),
        zero_place=PARAMETERS_MAX,
    )


def left_pinned(bpffs: Path | None) -> bool:
    """Whether an earlier service left option programs in this network namespace."""
    if not bpffs:
        return False
    return any(pin_directory(bpffs, netns_cookie()).glob(f"{TcpOptionAttachments.link_prefix}*"))


def read_kernel(*, counts_segments: bool) -> KernelOptionSupport:
    """Read what the kernel supports in the calling thread's network namespace. Blocks on /proc."""
    return KernelOptionSupport(
        congestion_control=(SYSCTLS / "tcp_congestion_control").read_text().strip(),
        congestion_controls=frozenset((SYSCTLS / "tcp_available_congestion_control").read_text().split()),
        counts_segments=counts_segments,
        delayed_ack_least_us=delayed_ack_least_us(),
    )


def delayed_ack_least_us() -> int:
    """The shortest delayed-ACK timer that the kernel can set, in microseconds: two jiffies."""
    jiffy_ns = round(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9)
    return 2 * jiffy_ns // 1000
