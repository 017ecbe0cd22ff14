# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pm.config.model import Datapath
from pm.datapath import choose_datapath
from pm.errors import SystemUnfit
from pm.linux.host import probe as probe_module
from pm.linux.host.patched_kernel import ABI, bpf_datapath
from pm.linux.host.privileges import Capability, effective_capabilities, holds, in_user_namespace
from pm.linux.host.probe import probe, require
from pm.linux.host.system_check import SystemCheck
from pm.linux.netlink.generic_netlink import Family

GOOD = SystemCheck("kernel", True, True, "6.1.0", "")
OPTIONAL = SystemCheck("bpffs", False, False, "not mounted", "run `mount -t bpf bpf /sys/fs/bpf`")
BAD = SystemCheck("mptcp", False, True, "disabled", "run `sysctl -w net.mptcp.enabled=1`")
WORSE = SystemCheck("cgroup2", False, True, "not mounted", "run `mount`")


def test_only_a_required_check_ends_a_start() -> None:
    """What is optional may be missing."""
    require([GOOD, OPTIONAL])


def test_the_first_failure_is_one_line_with_its_remedy() -> None:
    """The line names what is missing, what was found, the command, and where to see the rest; status 3."""
    with pytest.raises(SystemUnfit) as raised:
        require([GOOD, OPTIONAL, BAD, WORSE])
    assert str(raised.value) == (
        "mptcp: disabled: run `sysctl -w net.mptcp.enabled=1`; `mptcp-pm doctor` shows all that is missing"
    )
    assert raised.value.exit_status == 3


def test_every_check_has_a_remedy_exactly_where_it_failed() -> None:
    """The probe never raises, names each check once, and leaves no failure without a way out."""
    checks = probe()
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.found for check in checks)
    assert all(bool(check.remedy) is not check.ok for check in checks)


def test_the_probe_maps_no_compiler() -> None:
    """BCC, LLVM and libbpf are looked for, not loaded."""
    probe()
    maps = Path("/proc/self/maps").read_text()
    assert not any(library in maps for library in ("libbcc", "LLVM", "libbpf"))


@pytest.mark.parametrize(("release", "ok"), [("5.18.19", False), ("5.19.0", True), ("6.1.0-18-amd64", True)])
def test_the_oldest_kernel_is_5_19(release: str, ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands for path managers in user space came with Linux 5.19."""
    name = os.uname_result(("Linux", "host", release, "#1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: name)
    check = probe()[0]
    assert (check.name, check.ok, check.found) == ("kernel", ok, release)


def test_a_missing_library_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither an empty linker cache nor one that names a file that is gone counts."""
    cache = tmp_path / "ld.so.cache"
    cache.write_bytes(b"\0/nowhere/libbpf.so.1\0")
    monkeypatch.setattr(probe_module, "LD_CACHE", cache)
    (check,) = [check for check in probe() if check.name == "libbpf.so.1"]
    assert (check.ok, check.remedy) == (False, "run `apt install libbpf1`")
    (tmp_path / "libbpf.so.1").write_bytes(b"")
    cache.write_bytes(b"\0" + os.fsencode(tmp_path) + b"/libbpf.so.1\0")
    (check,) = [check for check in probe() if check.name == "libbpf.so.1"]
    assert (check.ok, check.found) == (True, str(tmp_path / "libbpf.so.1"))


def test_the_patched_kernel_is_told_by_its_sysctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, programs claim sessions one by one: no sysctl has to be writable."""
    monkeypatch.setattr(probe_module, "SYSCTLS", tmp_path)
    (tmp_path / "path_manager").write_text("kernel\n")
    (tmp_path / "path_manager").chmod(0o444)
    for there in (False, True):
        if there:
            (tmp_path / "bpf_max_subflows").write_text("32\n")
            (tmp_path / "bpf_abi").write_text(f"{ABI}\n")
        checks = {check.name: check for check in probe()}
        assert checks["bpf_datapath"].ok is checks["delack_segments"].ok is there
        assert checks["path_manager_sysctl"].required is not there


@pytest.mark.parametrize(("abi", "ok"), [(None, False), ("3", False), (str(ABI), True), (str(ABI + 1), True)])
def test_an_older_series_has_no_bpf_datapath(tmp_path: Path, abi: str | None, ok: bool) -> None:
    """`auto` runs on netlink there, and `bpf` is refused with a sentence."""
    (tmp_path / "bpf_max_subflows").write_text("64\n")
    if abi:
        (tmp_path / "bpf_abi").write_text(f"{abi}\n")
    check = bpf_datapath(tmp_path)
    assert check.ok is ok
    assert choose_datapath(Datapath.AUTO, [check]) is (Datapath.BPF if ok else Datapath.NETLINK)
    if not ok:
        with pytest.raises(SystemUnfit, match=f"BPF ABI {abi or 1}, and the programs need {ABI}"):
            choose_datapath(Datapath.BPF, [check])


def test_capabilities_are_read_from_the_status(tmp_path: Path) -> None:
    """CapEff is hexadecimal; bit numbers as in capability.h."""
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000008000001000\n")
    assert effective_capabilities(status) == {Capability.BPF, Capability.NET_ADMIN}
    status.write_text("CapEff:\t0000000000000000\n")
    assert effective_capabilities(status) == set()


@pytest.mark.parametrize("capability", list(Capability))
def test_sys_admin_includes_those_of_bpf(capability: Capability, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in capabilities(7); not CAP_NET_ADMIN."""
    monkeypatch.setattr("pm.linux.host.privileges.effective_capabilities", lambda: {Capability.SYS_ADMIN})
    assert holds(capability) == (capability is not Capability.NET_ADMIN)
    monkeypatch.setattr("pm.linux.host.privileges.effective_capabilities", lambda: {capability})
    assert [other for other in Capability if holds(other) and other is not capability] == (
        [Capability.PERFMON, Capability.BPF] if capability is Capability.SYS_ADMIN else []
    )


def test_a_child_user_namespace_is_told_by_its_map(tmp_path: Path) -> None:
    """Only the initial user namespace maps all identifiers onto themselves."""
    uid_map = tmp_path / "uid_map"
    uid_map.write_text("         0          0 4294967295\n")
    assert not in_user_namespace(uid_map)
    uid_map.write_text("         0       1000          1\n")
    assert in_user_namespace(uid_map)
    uid_map.unlink()
    assert not in_user_namespace(uid_map), "a kernel without user namespaces has no such file"


def test_emulation_is_no_old_kernel() -> None:
    """qemu-user answers so to every socket of generic netlink, which all kernels have."""

    def refused(family: str) -> Family:
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))

    (family,) = [check for check in probe(refused) if check.name == "mptcp_pm"]
    assert "emulates" in family.found
    assert "own architecture" in family.remedy
