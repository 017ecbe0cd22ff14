# SPDX-License-Identifier: Apache-2.0
"""Which of what kernel/patches add is there: docs/kernel-abi.md, "Telling the kernels apart"."""

from __future__ import annotations

from pathlib import Path

from pm.linux.host.system_check import SystemCheck, check

ABI = 4
"""The least number of the kernel's BPF ABI for the programs in bpf_pm/path_managers."""


def is_patched(sysctls: Path) -> bool:
    """``sysctls`` is /proc/sys/net/mptcp."""
    return (sysctls / "bpf_max_subflows").exists()


def bpf_datapath(sysctls: Path) -> SystemCheck:
    """Whether programs can open subflows; a kernel of an older series has another ABI than they need."""
    abi = _abi(sysctls)
    if abi >= ABI:
        found = "the helper bpf_open_subflow is available"
    elif abi:
        found = f"a kernel of an older series: it has BPF ABI {abi}, and the programs need {ABI}"
    else:
        found = "a stock kernel without bpf_open_subflow"
    return check(
        "bpf_datapath",
        abi >= ABI,
        found,
        "boot the kernel of kernel/README.md; the netlink datapath does not need it",
        required=False,
    )


def delack_segments(sysctls: Path) -> SystemCheck:
    """Whether the option delayed_ack counts segments."""
    ok = is_patched(sysctls)
    return check(
        "delack_segments",
        ok,
        "the option delayed_ack counts segments"
        if ok
        else "no TCP_BPF_DELACK_SEGS: the option delayed_ack limits the time only",
        "boot the kernel of kernel/README.md to have ACKs counted in segments too",
        required=False,
    )


def _abi(sysctls: Path) -> int:
    """0 on a stock kernel. The first series did not tell its number."""
    if not is_patched(sysctls):
        return 0
    try:
        return int((sysctls / "bpf_abi").read_text())
    except FileNotFoundError:
        return 1
