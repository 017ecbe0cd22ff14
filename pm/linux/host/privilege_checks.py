# SPDX-License-Identifier: Apache-2.0
"""Whether this process may do what the service does: capabilities, and bpf(2) itself.

A seccomp filter refuses bpf(2) with the same error as a missing capability: only trying tells them apart.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from pm.linux.host.privileges import Capability, has_seccomp_filter, holds, in_user_namespace
from pm.linux.host.remedies import capability_remedy, in_container, where_it_runs
from pm.linux.host.system_check import SystemCheck, check

SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_MAP_CREATE = 0  # enum bpf_cmd
_ARRAY_OF_ONE = struct.pack("=IIII", 2, 4, 8, 1)  # BPF_MAP_TYPE_ARRAY, key and value size, entries


def capability_check(capability: Capability) -> SystemCheck:
    """Whether a capability is held where it counts."""
    name = f"cap_{capability.name.lower()}"
    ok = holds(capability)
    if ok and in_user_namespace():
        remedy = where_it_runs(
            host="run in the initial user namespace",
            container="run it by an engine of root, in the initial user namespace (`--userns host`)",
        )
        return check(name, False, "held in a user namespace only", remedy)
    remedy = capability_remedy(
        capability.name,
        host="run as root, or set AmbientCapabilities=CAP_NET_ADMIN CAP_BPF in the systemd unit",
    )
    if capability is Capability.BPF and in_container():
        remedy += ", or set `selection: namespace`, which does without"
    return check(name, ok, "held" if ok else "not held", remedy)


def bpf_check() -> SystemCheck:
    """What the kernel answers to bpf(2): it makes a map of one entry, which is gone at once."""
    error = try_bpf()
    if not error:
        return check("bpf_syscall", True, "bpf(2) is allowed", "")
    reason = os.strerror(error)
    if error == errno.EPERM and not holds(Capability.BPF):
        return check(
            "bpf_syscall", False, f"not permitted ({reason})", capability_check(Capability.BPF).remedy
        )
    if has_seccomp_filter():
        found = f"a seccomp filter refuses bpf(2) ({reason}), whatever the capabilities"
        return check("bpf_syscall", False, found, _allow_in_filter())
    if error == errno.ENOSYS:
        return check("bpf_syscall", False, "this kernel has no bpf(2)", "boot one with CONFIG_BPF_SYSCALL=y")
    found = f"bpf(2) is refused ({reason}) although CAP_BPF is held"
    return check("bpf_syscall", False, found, "allow it in the security module (SELinux, AppArmor, lockdown)")


def try_bpf() -> int:
    """0, or the errno of bpf(2)."""
    number = SYS_BPF.get(os.uname().machine)
    if number is None:
        return 0  # the first real use will tell
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(number, _MAP_CREATE, _ARRAY_OF_ONE, len(_ARRAY_OF_ONE))
    if descriptor < 0:
        return ctypes.get_errno()
    os.close(descriptor)
    return 0


def _allow_in_filter() -> str:
    return where_it_runs(
        host="allow it in the unit: `SystemCallFilter=bpf` beside the other groups",
        container="give it a seccomp profile that allows `bpf` with CAP_BPF, as Docker's own does "
        "(`--security-opt seccomp=FILE`), or set `selection: namespace`, which does without",
    )
