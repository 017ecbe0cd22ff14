# SPDX-License-Identifier: Apache-2.0
"""What this kernel and these privileges offer, and the command that fixes what is missing.

Every check works without root, changes nothing, and loads no library. ``mptcp-pm doctor`` shows them all;
``require`` ends a start that cannot succeed.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from pm.errors import SystemUnfit
from pm.linux.host.cgroup_tree import CgroupTree, find_tree
from pm.linux.host.mounts import find_mount
from pm.linux.host.patched_kernel import bpf_datapath, delack_segments, is_patched
from pm.linux.host.privilege_checks import bpf_check, capability_check
from pm.linux.host.privileges import Capability, holds
from pm.linux.host.remedies import (
    SEE_CGROUPS,
    bpffs_remedy,
    in_other_mount_namespace,
    kernel_remedy,
    module_remedy,
    perfmon_remedy,
    sysctl_remedy,
    where_it_runs,
)
from pm.linux.host.sysctl import SYSCTLS, find_spelling
from pm.linux.host.system_check import SystemCheck, check
from pm.linux.netlink.generic_netlink import Family, find_family
from pm.linux.netlink.inet_diag_requests import IPPROTO_MPTCP
from pm.linux.netlink.mptcp_pm_messages import EVENT_GROUP, FAMILY, Command
from pm.linux.netlink.sock_diag import can_diagnose
from pm.names import show_name

OLDEST_KERNEL = (5, 19)
LD_CACHE = Path("/etc/ld.so.cache")
BTF = Path("/sys/kernel/btf/vmlinux")
JIT = Path("/proc/sys/net/core/bpf_jit_enable")

FindFamily = Callable[[str], Family]


def probe(
    find_family: FindFamily = find_family,
    *,
    precompiled: Callable[[], bool] = lambda: False,
    cgroup_root: Path | None = None,
) -> list[SystemCheck]:
    """Run every check, the fundamental ones first. This takes some milliseconds.

    ``find_family`` asks the kernel about a generic netlink family; it raises OSError. ``precompiled`` says
    if there are BPF programs that need no compiler; it raises SystemUnfit where they do not fit.
    ``cgroup_root`` is where the cgroup2 tree is, if not where it is mounted; SystemUnfit if it is no tree.
    """
    tree = find_tree(cgroup_root)
    return [
        _kernel(),
        _mptcp(),
        _mptcp_pm(find_family),
        capability_check(Capability.NET_ADMIN),
        capability_check(Capability.BPF),
        bpf_check(),
        _perfmon(),
        _path_manager_sysctl(),
        _cgroup2(tree),
        _cgroup_tree(tree),
        _bpffs(),
        _bcc(precompiled),
        _library("libbpf.so.1", "libbpf1"),
        _diagnosis("tcp_diag", socket.IPPROTO_TCP),
        _diagnosis("mptcp_diag", IPPROTO_MPTCP),
        _btf(),
        _jit(),
        _join_initial_address(),
        bpf_datapath(SYSCTLS),
        delack_segments(SYSCTLS),
    ]


def probe_sysctls() -> list[SystemCheck]:
    """The checks that a sysctl can change at any time."""
    return [_mptcp(), _path_manager_sysctl(), _join_initial_address()]


def has(checks: Iterable[SystemCheck], name: str) -> bool:
    """Whether a check of this name is there, and well."""
    return any(found.name == name and found.ok for found in checks)


def require(checks: Iterable[SystemCheck]) -> None:
    """Raises SystemUnfit for the first required check that failed."""
    for found in checks:
        if found.required and not found.ok:
            raise SystemUnfit(
                f"{found.name}: {found.found}", f"{found.remedy}; `mptcp-pm doctor` shows all that is missing"
            )


def _kernel() -> SystemCheck:
    release = os.uname().release
    version = re.match(r"(\d+)\.(\d+)", release)
    ok = version is not None and tuple(map(int, version.groups())) >= OLDEST_KERNEL
    return check("kernel", ok, release, kernel_remedy())


def _mptcp() -> SystemCheck:
    value = _read(SYSCTLS / "enabled")
    if value is None:
        return check("mptcp", False, "this kernel has no MPTCP", kernel_remedy())
    found = "enabled" if value == "1" else "disabled in this network namespace"
    return check("mptcp", value == "1", found, sysctl_remedy("net.mptcp.enabled=1"))


def _path_manager_sysctl() -> SystemCheck:
    name = "path_manager_sysctl"
    spelling = find_spelling()
    if spelling is None:
        return check(name, False, "no support for path managers in user space", kernel_remedy())
    path = SYSCTLS / spelling.name
    value = _read(path)
    writable = os.access(path, os.W_OK, effective_ids=True)
    found = f"net.mptcp.{spelling.name}={value}, {'writable' if writable else 'read-only here'}"
    return check(
        name,
        writable or value == spelling.userspace,
        found,
        sysctl_remedy(spelling.setting),
        required=not is_patched(SYSCTLS),  # there, BPF programs claim sessions one by one
    )


def _mptcp_pm(find_family: FindFamily) -> SystemCheck:
    try:
        family = find_family(FAMILY)
    except OSError as e:
        if e.errno == errno.EPROTONOSUPPORT:  # every kernel has it; qemu-user passes on little of netlink
            found = f"no generic netlink: another machine emulates {os.uname().machine}"
            return check(FAMILY, False, found, "use the image or package for that machine's own architecture")
        return check(FAMILY, False, f"no such netlink family ({e.strerror})", kernel_remedy())
    missing = [f"MPTCP_PM_CMD_{command.name}" for command in Command if command not in family.commands]
    missing += [] if EVENT_GROUP in family.groups else [f"group {EVENT_GROUP}"]
    found = f"missing: {', '.join(missing)}" if missing else "events and commands for user space"
    return check(FAMILY, not missing, found, kernel_remedy())


def _perfmon() -> SystemCheck:
    ok = holds(Capability.PERFMON)
    remedy = (
        "none on a stock kernel; path managers on the patched kernel and some programs of your own need it: "
        f"{perfmon_remedy()}"
    )
    return check("cap_perfmon", ok, "held" if ok else "not held", remedy, required=False)


def _cgroup2(tree: CgroupTree) -> SystemCheck:
    # If cgroup version 1 is at /sys/fs/cgroup, version 2 goes below it (systemd's hybrid layout).
    target = "/sys/fs/cgroup/unified" if find_mount("cgroup") else "/sys/fs/cgroup"
    return check(
        "cgroup2",
        tree.directory is not None,
        str(tree.directory or "not mounted"),
        where_it_runs(
            host="`ip netns exec` hides it: use `nsenter --net=/run/netns/NAME` instead"
            if in_other_mount_namespace()
            else f"run `mkdir -p {target} && mount -t cgroup2 cgroup2 {target}`",
            container=f"{SEE_CGROUPS}, or set `selection: namespace`",
        ),
    )


def _cgroup_tree(tree: CgroupTree) -> SystemCheck:
    found = (
        "other cgroups are visible"
        if tree.visible
        else "no cgroup but our own is visible: only a policy for `/` has sessions, all of this namespace"
    )
    return check("cgroup_tree", tree.visible, found, f"to tell cgroups apart, {SEE_CGROUPS}", required=False)


def _bpffs() -> SystemCheck:
    mount = find_mount("bpf")
    return check(
        "bpffs",
        mount is not None,
        str(mount or "not mounted"),
        bpffs_remedy(),
        required=False,
    )


def _bcc(precompiled: Callable[[], bool]) -> SystemCheck:
    library = _library("libbcc.so.0", "libbpfcc")
    if importlib.util.find_spec("bcc") is not None:
        return check("bcc", library.ok, library.found, library.remedy)
    found = "the Python module bcc is not installed"
    remedy = "run `apt install python3-bpfcc` (a virtual environment needs --system-site-packages to see it)"
    try:
        if precompiled():
            found = (
                "not installed; only `source:` in a policy needs it, since the BPF programs are precompiled"
            )
            return check("bcc", True, found, "", required=False)
    except SystemUnfit as e:
        return check("bcc", False, f"{found}, and {e.message}", e.remedy)
    return check("bcc", False, found, remedy)


def _library(soname: str, package: str) -> SystemCheck:
    """Look a library up in the dynamic linker's cache: loading it would map it."""
    try:
        cache = LD_CACHE.read_bytes()
    except OSError:
        cache = b""
    for match in re.finditer(rb"/[^\0]*/" + re.escape(soname.encode()) + rb"(?=\0)", cache):
        if os.path.exists(match[0]):
            return check(soname, True, show_name(match[0]), "")
    return check(soname, False, f"{soname} is not installed", f"run `apt install {package}`")


def _diagnosis(module: str, protocol: int) -> SystemCheck:
    ok = can_diagnose(protocol)
    return check(module, ok, "available" if ok else "not available", module_remedy(module))


def _btf() -> SystemCheck:
    ok = BTF.exists()
    return check(
        "btf",
        ok,
        "available" if ok else "not available",
        "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
        required=False,
    )


def _jit() -> SystemCheck:
    # Only root sees this sysctl, and only in the initial network namespace.
    value = _read(JIT)
    found = "not visible from here" if value is None else "disabled" if value == "0" else "enabled"
    return check("bpf_jit", value != "0", found, "run `sysctl -w net.core.bpf_jit_enable=1`", required=False)


def _join_initial_address() -> SystemCheck:
    value = _read(SYSCTLS / "allow_join_initial_addr_port")
    return check(
        "join_initial_address",
        value == "1",
        "peers may join the address they connected to" if value == "1" else "peers are told not to join it",
        "right behind a layer-4 load balancer, which would send a join to another server (with `announce`); "
        f"elsewhere {sysctl_remedy('net.mptcp.allow_join_initial_addr_port=1')}",
        required=False,
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
