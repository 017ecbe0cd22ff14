# SPDX-License-Identifier: Apache-2.0
"""How to fix what is missing: in a container it is the engine that has to be told."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote

from pm.linux.host.netns import in_initial_namespace

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
    setting = quote(setting)
    if in_initial_namespace():  # of which an engine sets no sysctl
        container = f"run `sysctl -w {setting}` on the host, whose network this container has"
    else:
        container = (
            f"give this container, or the one whose network it shares, `--sysctl {setting}` "
            "(`sysctls:` in Compose, `securityContext.sysctls` in Kubernetes)"
        )
    return where_it_runs(host=f"run `sysctl -w {setting}`", container=container)


def capability_remedy(name: str, *, host: str) -> str:
    """How to get a capability, whose name is without ``CAP_``; ``host`` is the remedy outside a container."""
    container = (
        f"add it to the container: `--cap-add {name}`, `cap_add: [{name}]` in Compose, "
        "`securityContext.capabilities.add` in Kubernetes"
    )
    if os.geteuid() != 0:
        container += ", and run it as root (`user: root`, `runAsUser: 0`): engines give them to root only"
    return where_it_runs(host=host, container=container)


def perfmon_remedy() -> str:
    """How to get the capability with which the verifier accepts more programs."""
    return capability_remedy("PERFMON", host="add CAP_PERFMON to the systemd unit's CapabilityBoundingSet=")


def kernel_remedy() -> str:
    """How to get a kernel that has what the service needs."""
    return where_it_runs(
        host="boot Linux 5.19 or newer with CONFIG_MPTCP=y (`apt install linux-image-amd64`)",
        container="run the container on a machine with Linux 5.19 or newer and CONFIG_MPTCP=y: "
        "it has the kernel of its host",
    )


def module_remedy(module: str) -> str:
    """How to get a module of the kernel, which no container can load."""
    return where_it_runs(host=f"run `modprobe {module}`", container=f"run `modprobe {module}` on the host")


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
