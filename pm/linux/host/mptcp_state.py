# SPDX-License-Identifier: Apache-2.0
"""Sysctls and counters of MPTCP in the network namespace of this process."""

from __future__ import annotations

from pathlib import Path

from pm.linux.host.counters import read_counters
from pm.no_session import MptcpState

_SYSCTLS = Path("/proc/sys/net")


def read_mptcp_state() -> MptcpState:
    first, last = _read("ipv4/ip_local_port_range", "32768 60999").split()
    return MptcpState(
        enabled=_read("mptcp/enabled", "0") != "0",
        blackhole_timeout_s=blackhole_timeout_s(),
        ephemeral=(int(first), int(last)),
        counters={name.removeprefix("MPTcpExt"): count for name, count in read_counters().items() if count},
    )


def blackhole_timeout_s() -> int | None:
    """net.mptcp.blackhole_timeout; None before Linux 6.12."""
    timeout = _read("mptcp/blackhole_timeout", "")
    return int(timeout) if timeout else None


def _read(sysctl: str, default: str) -> str:
    try:
        return (_SYSCTLS / sysctl).read_text().strip()
    except FileNotFoundError:
        return default
