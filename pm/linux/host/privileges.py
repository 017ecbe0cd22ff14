# SPDX-License-Identifier: Apache-2.0
"""What this process may do (capabilities(7))."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path


class Capability(IntEnum):
    """Bit numbers of include/uapi/linux/capability.h."""

    NET_ADMIN = 12
    SYS_ADMIN = 21
    PERFMON = 38
    BPF = 39


def effective_capabilities(status: Path = Path("/proc/self/status")) -> frozenset[Capability]:
    """The members of ``Capability`` that the process holds."""
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            return frozenset(c for c in Capability if bits >> c & 1)
    return frozenset()


def holds(capability: Capability) -> bool:
    """Whether the process may do what a capability allows; CAP_SYS_ADMIN includes those of BPF."""
    enough = {capability}
    if capability in (Capability.BPF, Capability.PERFMON):
        enough.add(Capability.SYS_ADMIN)
    return not enough.isdisjoint(effective_capabilities())


def has_seccomp_filter(status: Path = Path("/proc/self/status")) -> bool:
    """Whether a filter decides which system calls the process may use (seccomp(2))."""
    return any(line.split() == ["Seccomp:", "2"] for line in status.read_text().splitlines())


def in_user_namespace(uid_map: Path = Path("/proc/self/uid_map")) -> bool:
    """True in a child user namespace: the kernel does not accept capabilities held there for BPF."""
    try:
        return uid_map.read_text().split() != ["0", "0", "4294967295"]
    except FileNotFoundError:  # a kernel without CONFIG_USER_NS
        return False
