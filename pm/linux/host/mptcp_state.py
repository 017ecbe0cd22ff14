# SPDX-License-Identifier: Apache-2.0
"""Sysctls and counters of MPTCP in the network namespace of this process."""

from __future__ import annotations

from pathlib import Path

from pm.linux.host.counters import read_counters
from pm.no_session import MptcpState

_SYSCTLS = Path("/proc/sys/net")


def read_mptcp_state() -> MptcpState:
    first, last = _read("ipv4/ip_local_port_range", "32768 60999").split()
    timeout = _read("mptcp/blackhole_timeout", "")
    return MptcpState(
        enabled=_read("mptcp/enabled", "0") != "0",
        blackhole_timeout_s=int(timeout) if timeout else None,
        ephemeral=(int(first), int(last)),
        counters={name.removeprefix("MPTcpExt"): count for name, count in read_counters().items() if count},
    )


def _read(sysctl: str, default: str) -> str:
    try:
        return (_SYSCTLS / sysctl).read_text().strip()
    except FileNotFoundError:
        return default
