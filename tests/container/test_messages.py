# SPDX-License-Identifier: Apache-2.0
"""Each capability, mount and sysctl that is left out ends the sidecar with one line that says what to add."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.lab.containers import (
    BPF,
    CONFIG,
    IMAGE,
    NET_ADMIN,
    RUN,
    SHIPPED,
    STATE,
    TRAFFIC_IMAGE,
    docker,
    docker_status,
    run_sidecar,
)
from tests.lab.netns import NAME
from tests.lab.waiting import wait_for

USERSPACE = ("--sysctl", "net.mptcp.pm_type=1")
# A container with a network namespace: its sysctls.
NETWORKS = {
    "prepared": USERSPACE,
    "untouched": (),
    "without-mptcp": (*USERSPACE, "--sysctl", "net.mptcp.enabled=0"),
}
BAD_CONFIG = 78  # EX_CONFIG of sysexits.h
CGROUPS = ("--volume", "/sys/fs/cgroup:/sys/fs/cgroup:ro")
# All but bpf(2), which is refused as a default profile without the capability's name refuses it.
WITHOUT_BPF = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
}
PYTHON = "/usr/bin/python3"
# personality(2) with UNAME26: the kernel says that it is 2.6.
ON_AN_OLD_KERNEL = f"""
import ctypes, os
ctypes.CDLL(None).personality(0x20000)
os.execv("/usr/local/bin/mptcp-pm", ["mptcp-pm", "run", "--config", "{CONFIG}"])
"""
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


def refused(network: str, *options: str, command: Sequence[str] = RUN) -> tuple[int, str]:
    """Exit status and the one line of a sidecar that does not start; without options: all that are needed."""
    status, text = run_sidecar(f"{NAME}-{network}", *options, command=command)
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
            "prepared",
            (*NET_ADMIN, "--tmpfs", "/run/mptcp-pm:ro", *SHIPPED),
            3,
            ["/run/mptcp-pm cannot be written", "--tmpfs"],
            id="state directory that is read-only",
        ),
        pytest.param(
            "prepared",
            (*NET_ADMIN, *STATE, *SHIPPED, "--user", "65534"),
            3,
            ["cap_net_admin", "user: root"],
            id="root",
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


def test_seccomp(networks: None, tmp_path: Path) -> None:
    """A profile that refuses bpf(2) is told from a missing capability."""
    profile = tmp_path / "seccomp.json"
    profile.write_text(json.dumps(WITHOUT_BPF))
    options = (*BPF, *CGROUPS, *STATE, "--security-opt", f"seccomp={profile}")
    status, line = refused("prepared", *options, *mounted(tmp_path, "cgroup"))
    assert status == 3
    assert line.startswith("bpf_syscall: a seccomp filter refuses bpf(2)")
    assert "--security-opt seccomp=FILE" in line


def test_old_kernel(networks: None) -> None:
    """The remedy is the host's kernel: a container has none of its own."""
    options = (*NET_ADMIN, *STATE, *SHIPPED, "--entrypoint", PYTHON)
    status, line = refused("prepared", *options, command=("-c", ON_AN_OLD_KERNEL))
    assert status == 3
    assert line.startswith("kernel: 2.6.")
    assert "run the container on a machine with Linux 5.19 or newer" in line


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("digest", "0", ["is of another version of mptcp-pm", "run the image as it was built"]),
        ("machine", "sparc64", ["is for sparc64", "use the image for"]),
    ],
)
def test_precompiled_program_that_does_not_fit(
    networks: None, tmp_path: Path, field: str, value: str, words: list[str]
) -> None:
    """It is refused, and the line says which file it is."""
    code = "from pm.linux.bpf.precompiled import objects_directory as d; print(d() / 'classify.json')"
    path = docker("run", "--rm", "--entrypoint", PYTHON, IMAGE, "-c", code).strip()
    stored = docker("run", "--rm", "--entrypoint", PYTHON, IMAGE, "-c", f"print(open('{path}').read())")
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**json.loads(stored), field: value}))
    volume = ("--volume", f"{other}:{path}:ro")
    status, line = refused("prepared", *BPF, *CGROUPS, *STATE, *volume, *mounted(tmp_path, "cgroup"))
    assert status == 3
    for word in (path, *words):
        assert word in line


def test_without_a_volume_for_programs(networks: None, tmp_path: Path) -> None:
    """The sidecar runs; its log names the volume that lets programs outlive it."""
    name = f"{NAME}-no-volume"
    try:
        docker(
            "run", "--detach", "--name", name, "--network", f"container:{NAME}-prepared", "--cap-drop", "ALL",
            *BPF, *CGROUPS, *STATE, *mounted(tmp_path, "cgroup"), IMAGE,
        )  # fmt: skip
        wait_for(lambda: docker_status("exec", name, "mptcp-pm", "status")[0] == 0, "a sidecar that is ready")
        records = [json.loads(line) for line in docker("logs", name).splitlines()]
    finally:
        docker("rm", "--force", "--volumes", name)
    (warning,) = [record for record in records if record["event"] == "bpffs_not_mounted"]
    assert "type: bpf, device: bpf" in warning["remedy"]
    assert "/sys/fs/bpf" in warning["remedy"]


def test_configuration_that_cannot_be_read(networks: None, tmp_path: Path) -> None:
    """Root of a container is not above a file's mode: it has no CAP_DAC_OVERRIDE."""
    volume = mounted(tmp_path, "options")
    (tmp_path / "mptcp-pm.yaml").chmod(0)
    status, line = refused("prepared", *NET_ADMIN, *STATE, *volume)
    assert (status, "permission denied" in line) == (BAD_CONFIG, True), line
