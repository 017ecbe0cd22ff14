# SPDX-License-Identifier: Apache-2.0
"""The network namespace of the calling thread."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from pm.errors import SystemUnfit
from pm.linux.netlink.link_kinds import IN_EVERY_NAMESPACE

SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, Linux 5.14
NAMESPACE = Path("/proc/self/ns/net")
_INITIAL_ONLY = Path("/proc/sys/net/core/dev_weight")  # of the sysctls that no other namespace has


def netns_cookie() -> int:
    """SO_NETNS_COOKIE of the namespace, not reused until reboot.

    Raises SystemUnfit where the kernel does not have it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        try:
            return int.from_bytes(s.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)
        except OSError as e:
            raise SystemUnfit(
                "this kernel has no network namespace cookies", "boot Linux 5.19 or newer"
            ) from e


def netns_inode() -> int:
    """The number in ``net:[NUMBER]``, by which people and lsns(8) know the namespace."""
    return NAMESPACE.stat().st_ino


def in_initial_namespace() -> bool:
    """Whether it is the namespace that the machine booted with."""
    return _INITIAL_ONLY.exists()


def has_interfaces() -> bool:
    """Whether it has an interface that not every namespace has."""
    return any(name not in IN_EVERY_NAMESPACE for _, name in socket.if_nameindex())
