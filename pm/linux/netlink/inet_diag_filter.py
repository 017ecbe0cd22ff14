# SPDX-License-Identifier: Apache-2.0
"""A filter of sockets in the kernel's bytecode (struct inet_diag_bc_op in include/uapi/linux/inet_diag.h).

Each operation has jump offsets, in bytes, for match and mismatch; jumping to the end of the code accepts
the socket, and jumping 4 bytes past it rejects the socket. The operation behind a comparison has its port.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

JMP, S_EQ, D_EQ, CGROUP_COND = 1, 11, 12, 13  # INET_DIAG_BC_*
CGROUPS_MAX = 2048  # offsets have 16 bits

_OPERATION = struct.Struct("=BBH")  # code, yes, no
_CGROUP = struct.Struct("=Q")


def any_of(ports: Collection[tuple[int, int]]) -> bytes:
    """Code that accepts the sockets with one of these (local, remote) ports. ``ports`` is not empty."""
    comparison, jump = 2 * _OPERATION.size, _OPERATION.size
    block = 2 * comparison + jump
    code = b""
    for i, (local, remote) in enumerate(ports, 1):
        behind = (len(ports) - i) * block  # what follows this block
        beyond = 0 if behind else _OPERATION.size
        code += _OPERATION.pack(S_EQ, comparison, block + beyond) + _OPERATION.pack(0, 0, local)
        code += _OPERATION.pack(D_EQ, comparison, comparison + jump + beyond) + _OPERATION.pack(0, 0, remote)
        code += _OPERATION.pack(JMP, jump, jump + behind)
    return code


def none_of_cgroups(cgroup_ids: Collection[int]) -> bytes:
    """Code that accepts the sockets of all cgroups but these, 1 to ``CGROUPS_MAX`` of them (Linux 5.9)."""
    comparison, jump = _OPERATION.size + _CGROUP.size, _OPERATION.size
    block = comparison + jump
    code = b""
    for i, cgroup_id in enumerate(cgroup_ids, 1):
        beyond = (len(cgroup_ids) - i) * block + _OPERATION.size
        code += _OPERATION.pack(CGROUP_COND, comparison, block) + _CGROUP.pack(cgroup_id)
        code += _OPERATION.pack(JMP, jump, jump + beyond)
    return code
