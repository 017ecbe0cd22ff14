# SPDX-License-Identifier: Apache-2.0
"""The probe of the running kernel, with and without privileges and settings."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator

import pytest

from pm.linux.host.privilege_checks import SYS_BPF
from pm.linux.host.probe import probe
from pm.linux.host.remedies import in_container, sysctl_remedy
from pm.linux.host.system_check import SystemCheck
from tests.lab.commands import run
from tests.lab.netns import inside, namespace
from tests.lab.service import ROOT

SCRIPT = """
import dataclasses, json
from pm.errors import SystemUnfit
from pm.linux.host.privilege_checks import SYS_BPF
from pm.linux.host.probe import probe, require
checks = probe()
try:
    require(checks)
    error = ""
except SystemUnfit as e:
    error = str(e)
print(json.dumps([[dataclasses.asdict(check) for check in checks], error]))
"""


BPF = SYS_BPF[os.uname().machine]
# Runs a command under a filter (classic BPF: load nr, compare, allow or fail) in which bpf(2) fails.
WITHOUT_BPF = """
import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x15, 0, 1, {number}), (0x06, 0, 0, 0x50000 | {error}), (0x06, 0, 0, 0x7fff0000)]
program = b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
buffer = ctypes.create_string_buffer(program)
fprog = struct.pack("@HP", len(code), ctypes.addressof(buffer))
assert ctypes.CDLL(None).prctl(22, 2, fprog) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def netns() -> Iterator[str]:
    with namespace() as name:
        yield name


def probe_under(*wrapper: str) -> tuple[dict[str, SystemCheck], str]:
    """Checks by name, and what ``require`` says of them, in a process started by ``wrapper``."""
    # Unprivileged users need not be able to enter this directory: the modules come along on sys.path.
    environment = f"PYTHONPATH={':'.join([str(ROOT), *filter(None, sys.path)])}"
    checks, error = json.loads(run(*wrapper, "env", environment, sys.executable, "-c", SCRIPT))
    return {check["name"]: SystemCheck(**check) for check in checks}, error


def test_root_on_this_kernel_has_all_that_is_required(netns: str) -> None:
    """Every required check passes where the tests of the service run."""
    failed = [check for check in inside(netns, probe) if check.required and not check.ok]
    assert failed == []


def test_mptcp_that_is_disabled_names_the_sysctl(netns: str) -> None:
    """``net.mptcp.enabled=0`` in the namespace is the one thing that fails."""
    enter = ("nsenter", f"--net=/run/netns/{netns}")
    run(*enter, "sysctl", "-qw", "net.mptcp.enabled=0", "net.mptcp.allow_join_initial_addr_port=0")
    checks, error = probe_under(*enter)
    assert not checks["mptcp"].ok
    enable = inside(netns, lambda: sysctl_remedy("net.mptcp.enabled=1"))
    assert error.startswith(f"mptcp: disabled in this network namespace: {enable}")
    join = inside(netns, lambda: sysctl_remedy("net.mptcp.allow_join_initial_addr_port=1"))
    assert checks["join_initial_address"].remedy.endswith(f"elsewhere {join}")
    assert not checks["join_initial_address"].required
    assert not checks["join_initial_address"].required


def test_without_privileges_all_checks_still_answer() -> None:
    """An ordinary user sees the same kernel, which capabilities are missing, and what to do."""
    checks, error = probe_under(
        "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all"
    )
    assert [check.name for check in probe()] == list(checks)
    assert not checks["cap_net_admin"].ok
    assert not checks["cap_bpf"].ok
    for name in ("kernel", "mptcp", "mptcp_pm", "cgroup2", "bcc", "tcp_diag", "mptcp_diag"):
        assert checks[name].ok, checks[name]
    assert "\n" not in error
    assert error.startswith("cap_net_admin: not held: ")
    assert ("--cap-add NET_ADMIN" if in_container() else "run as root") in error


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_a_seccomp_filter_is_no_missing_capability(error: int) -> None:
    """With all capabilities, and a filter that refuses bpf(2): the filter is named, and what allows it."""
    checks, complaint = probe_under(sys.executable, "-c", WITHOUT_BPF.format(number=BPF, error=error))
    assert checks["cap_bpf"].ok
    assert complaint.startswith(f"bpf_syscall: a seccomp filter refuses bpf(2) ({os.strerror(error)})")
    assert ("--security-opt seccomp=" if in_container() else "SystemCallFilter=bpf") in complaint


def test_capabilities_of_a_user_namespace_do_not_count() -> None:
    """Root of a child user namespace has every bit in CapEff, and BPF refuses it all the same."""
    checks, error = probe_under("unshare", "--user", "--map-root-user")
    assert checks["cap_bpf"].found == "held in a user namespace only"
    assert error.startswith("cap_net_admin: held in a user namespace only")


def test_no_cgroup2_names_the_mount() -> None:
    """Where cgroup2 is not mounted, the command that mounts it is there."""
    checks, error = probe_under(
        "unshare", "--mount", "sh", "-c", 'umount -l -t cgroup2 -a && exec "$@"', "sh"
    )
    assert checks["cgroup2"].found == "not mounted"
    mount = "-v /sys/fs/cgroup" if in_container() else "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    assert mount in error
