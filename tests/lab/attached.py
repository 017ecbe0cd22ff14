# SPDX-License-Identifier: Apache-2.0
"""Which sock_ops programs are attached to a cgroup, from the kernel itself (BPF_PROG_QUERY)."""

from __future__ import annotations

import os
from ctypes import byref, c_uint32
from pathlib import Path

from pm.linux.bpf import libbpf


def sock_ops_programs(cgroup: Path) -> tuple[int, ...]:
    """Ids of all sock_ops programs attached to a cgroup's directory, without those of its parents.

    Raises OSError where the directory does not exist.
    """
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    count = c_uint32(64)
    ids = (c_uint32 * count.value)()
    query = libbpf.library().bpf_prog_query
    try:
        result = query(directory, libbpf.ATTACH_CGROUP_SOCK_OPS, c_uint32(0), None, ids, byref(count))
    finally:
        os.close(directory)
    assert result == 0, os.strerror(-result)
    return tuple(ids[: count.value])
