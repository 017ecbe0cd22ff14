# SPDX-License-Identifier: Apache-2.0
"""A link of a program to a cgroup, and why there can be none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pm.errors import KernelRefused
from pm.linux.bpf import libbpf


class CgroupGone(KernelRefused):
    """A cgroup does not exist any more, or another one has its name by now."""

    def __init__(self, cgroup: Path) -> None:
        super().__init__(f"attach to {cgroup}", errno.ENOENT)


def link_to(cgroup: Path, cgroup_id: int, program: int) -> int:
    """A link of a program to the cgroup of this directory and id. Raises CgroupGone, KernelRefused."""
    try:
        directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as e:
        raise CgroupGone(cgroup) from e
    except OSError as e:
        raise KernelRefused(f"attach to {cgroup}", e.errno or 0) from e
    try:
        if os.fstat(directory).st_ino != cgroup_id:
            raise CgroupGone(cgroup)
        return libbpf.link_cgroup(program, directory)
    except KernelRefused as e:
        if e.errno == errno.ENOENT:  # removed since it was opened
            raise CgroupGone(cgroup) from e
        raise KernelRefused(f"attach to {cgroup}", e.errno, _refusal(e)) from e
    finally:
        os.close(directory)


def _refusal(error: KernelRefused) -> str:
    if error.errno == errno.EPERM:
        return (
            "a program on this cgroup or an ancestor was attached without BPF_F_ALLOW_MULTI and "
            "excludes others: `bpftool cgroup tree` shows it"
        )
    return error.reason
