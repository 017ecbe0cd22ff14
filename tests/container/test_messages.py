# SPDX-License-Identifier: GPL-2.0-only
"""Each capability, mount and sysctl that is left out ends the sidecar with one line that says what to add."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.containers import BPF, NET_ADMIN, SHIPPED, STATE, TRAFFIC_IMAGE, docker, run_sidecar
from tests.lab.netns import NAME

USERSPACE = ("--sysctl", "net.mptcp.pm_type=1")
# A container with a network namespace: its sysctls.
NETWORKS = {
    "prepared": USERSPACE,
    "untouched": (),
    "without-mptcp": (*USERSPACE, "--sysctl", "net.mptcp.enabled=0"),
}
BAD_CONFIG = 78  # EX_CONFIG of sysexits.h
CGROUPS = ("--volume", "/sys/fs/cgroup:/sys/fs/cgroup:ro")
CONFIGURATIONS = {
    "options": "{name: a, cgroup: /, path_manager: fullmesh, options: {user_timeout: {advertise: 30s}}}",
    "cgroup": "{name: a, cgroup: /application.slice/*, path_manager: fullmesh}",
}


@pytest.fixture(scope="module")
def networks() -> Iterator[None]:
    for name, sysctls in NETWORKS.items():
        docker("run", "--detach", "--name", f"{NAME}-{name}", *sysctls, TRAFFIC_IMAGE)
    yield
    docker("rm", "--force", *(f"{NAME}-{name}" for name in NETWORKS))


def mounted(directory: Path, configuration: str) -> tuple[str, str]:
    (directory / "mptcp-pm.yaml").write_text(f"policies:\n  - {CONFIGURATIONS[configuration]}\n")
    return "--volume", f"{directory}:/etc/mptcp-pm:ro"


def refused(network: str, *options: str) -> tuple[int, str]:
    """Exit status and the one line of a sidecar that does not start; without options: all that are needed."""
    status, text = run_sidecar(f"{NAME}-{network}", *options)
    lines = text.splitlines()
    assert len(lines) == 1, text
    return status, lines[0]


@pytest.mark.parametrize(
    ("network", "options", "status", "words"),
    [
        pytest.param("prepared", (*STATE, *SHIPPED), 3, ["cap_net_admin", "NET_ADMIN"], id="NET_ADMIN"),
        pytest.param("untouched", (), 3, ["path_manager", "sysctls"], id="sysctl"),
        pytest.param("without-mptcp", (), 3, ["mptcp", "net.mptcp.enabled=1"], id="MPTCP off"),
        pytest.param(
            "prepared",
            (*NET_ADMIN, "--read-only", *SHIPPED),
            3,
            ["--tmpfs /run/mptcp-pm"],
            id="state directory",
        ),
        pytest.param(
            "prepared", (*NET_ADMIN, *STATE), BAD_CONFIG, ["/etc/mptcp-pm/mptcp-pm.yaml"], id="configuration"
        ),
    ],
)
def test_left_out(
    networks: None, network: str, options: tuple[str, ...], status: int, words: list[str]
) -> None:
    found, line = refused(network, *options)
    assert found == status, line
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("configuration", "options", "status", "words"),
    [
        pytest.param(
            "options",
            BPF,
            BAD_CONFIG,
            ["policies.a.options", "/sys/fs/cgroup:/sys/fs/cgroup:ro"],
            id="options",
        ),
        pytest.param(
            "cgroup", NET_ADMIN, BAD_CONFIG, ["/sys/fs/cgroup:/sys/fs/cgroup:ro"], id="cgroup of a policy"
        ),
        pytest.param("cgroup", (*NET_ADMIN, *CGROUPS), 3, ["cap_bpf", "BPF"], id="CAP_BPF"),
    ],
)
def test_left_out_for_policies_per_container(
    networks: None,
    tmp_path: Path,
    configuration: str,
    options: tuple[str, ...],
    status: int,
    words: list[str],
) -> None:
    found, line = refused("prepared", *options, *STATE, *mounted(tmp_path, configuration))
    assert found == status, line
    for word in words:
        assert word in line


def test_configuration_that_cannot_be_read(networks: None, tmp_path: Path) -> None:
    """Root of a container is not above a file's mode: it has no CAP_DAC_OVERRIDE."""
    volume = mounted(tmp_path, "options")
    (tmp_path / "mptcp-pm.yaml").chmod(0)
    status, line = refused("prepared", *NET_ADMIN, *STATE, *volume)
    assert (status, "permission denied" in line) == (BAD_CONFIG, True), line
