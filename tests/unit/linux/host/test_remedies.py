# SPDX-License-Identifier: Apache-2.0
"""Remedies for where the service runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pm.linux.host import remedies
from pm.linux.host.privilege_checks import capability_check
from pm.linux.host.privileges import Capability


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing tells of a container."""
    monkeypatch.setattr(remedies, "_MARKS", (Path("/nonexistent"),))
    for name in ("container", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


def test_on_a_host() -> None:
    """It is a command."""
    assert remedies.sysctl_remedy("a.b=1") == "run `sysctl -w a.b=1`"


@pytest.mark.parametrize("name", ["container", "KUBERNETES_SERVICE_HOST"])
def test_in_a_container(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an option of the engine."""
    monkeypatch.setenv(name, "podman")
    monkeypatch.setattr(remedies, "in_initial_namespace", lambda: False)
    assert "--sysctl a.b=1" in remedies.sysctl_remedy("a.b=1")
    assert "volume" in remedies.bpffs_remedy()


def test_with_the_network_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines refuse to set its sysctls."""
    monkeypatch.setenv("container", "docker")
    monkeypatch.setattr(remedies, "in_initial_namespace", lambda: True)
    assert remedies.sysctl_remedy("a.b=1").startswith("run `sysctl -w a.b=1` on the host")


def test_a_file_of_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker makes /.dockerenv in each container, Podman /run/.containerenv."""
    monkeypatch.setattr(remedies, "_MARKS", (tmp_path,))
    assert remedies.in_container()


def test_a_capability_that_can_be_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CAP_BPF a sidecar can select by namespace; without CAP_NET_ADMIN it can do nothing."""
    monkeypatch.setenv("container", "docker")
    monkeypatch.setattr("pm.linux.host.privileges.effective_capabilities", frozenset)
    bpf, net_admin = capability_check(Capability.BPF), capability_check(Capability.NET_ADMIN)
    assert "--cap-add BPF" in bpf.remedy
    assert "`selection: namespace`" in bpf.remedy
    assert "--cap-add NET_ADMIN" in net_admin.remedy
    assert "namespace" not in net_admin.remedy


def test_root_alone_gets_what_an_engine_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not root in a container, and gave the capability, is told why it is not there."""
    monkeypatch.setenv("container", "docker")
    assert "root" not in remedies.capability_remedy("BPF", host="")
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    assert "run it as root (`user: root`" in remedies.capability_remedy("BPF", host="")


def test_a_container_has_the_kernel_of_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a package nor a module is a container's to install."""
    assert "apt install" in remedies.kernel_remedy()
    assert remedies.module_remedy("tcp_diag") == "run `modprobe tcp_diag`"
    monkeypatch.setenv("container", "docker")
    assert "the kernel of its host" in remedies.kernel_remedy()
    assert remedies.module_remedy("tcp_diag").endswith("on the host")
    assert "--cap-add PERFMON" in remedies.perfmon_remedy()


def test_what_a_shell_would_read_is_quoted() -> None:
    """A setting may have the name of an interface in it."""
    assert remedies.sysctl_remedy("a.$(id)=1") == "run `sysctl -w 'a.$(id)=1'`"
