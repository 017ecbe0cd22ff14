# SPDX-License-Identifier: GPL-2.0-only
"""How to fix what is missing: in a container it is the engine that has to be told."""

from __future__ import annotations

import os
from pathlib import Path

_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
SEE_CGROUPS = (
    "let the container see the host's cgroups (`-v /sys/fs/cgroup:/sys/fs/cgroup:ro`, or `--cgroupns host`)"
)


def in_container() -> bool:
    """Whether a container engine started this process: Docker, Podman, systemd-nspawn or Kubernetes."""
    return (
        "container" in os.environ
        or "KUBERNETES_SERVICE_HOST" in os.environ
        or any(mark.exists() for mark in _MARKS)
    )


def sysctl_remedy(setting: str) -> str:
    """How to get ``NAME=VALUE`` in this network namespace."""
    return where_it_runs(
        host=f"run `sysctl -w {setting}`",
        container=f"give this container, or the one whose network it shares, `--sysctl {setting}` "
        "(`sysctls:` in Compose, `securityContext.sysctls` in Kubernetes)",
    )


def bpffs_remedy() -> str:
    """How to get a BPF file system, in which programs and maps are pinned."""
    return where_it_runs(
        host="run `mount -t bpf bpf /sys/fs/bpf`",
        container="mount a volume with the driver options `type: bpf, device: bpf` on /sys/fs/bpf",
    )


def in_other_mount_namespace() -> bool:
    """Whether the file systems are not those of the first process: so they are under `ip netns exec`."""
    try:
        return not os.path.samestat(os.stat("/proc/self/ns/mnt"), os.stat("/proc/1/ns/mnt"))
    except OSError:
        return False


def where_it_runs(*, host: str, container: str) -> str:
    """The remedy for where this process runs."""
    return container if in_container() else host
