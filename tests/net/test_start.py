# SPDX-License-Identifier: Apache-2.0
"""What `mptcp-pm run` says where it cannot run, and which files it follows."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pm.linux.host.remedies import in_container
from pm.linux.host.sysctl import SYSCTLS
from tests.lab.lab import Lab
from tests.lab.scenarios import config, count_programs, mesh, policy, wait_pairs
from tests.lab.service import Service, command
from tests.lab.waiting import wait_equal


def start(lab: Lab, path: Path, *prefix: str) -> tuple[int, str]:
    """Exit status and standard error of a service that must end by itself."""
    process = lab.popen(
        [*prefix, *command(), "run", "--config", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, complaint = process.communicate(timeout=20)
    return process.returncode, complaint


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(f"api: {{unix: {tmp_path}/api.sock}}\npolicies: []\n")
    return path


def test_bad_file(lab: Lab, tmp_path: Path) -> None:
    """Exit 78 and every problem with its line; no traceback."""
    path = tmp_path / "config.yaml"
    path.write_text("datapath: fast\npolicies:\n  - {name: a, cgroup: a}\n")
    status, complaint = start(lab, path)
    assert status == os.EX_CONFIG
    assert [line.split(": ")[0] for line in complaint.splitlines()] == [f"{path}:1", f"{path}:3", f"{path}:3"]


@pytest.mark.parametrize("path", ["/nonexistent/config.yaml", "/etc"])
def test_no_file(lab: Lab, path: str) -> None:
    """Exit 78, at which the unit does not restart, and one line for a file that is missing or a directory."""
    status, complaint = start(lab, Path(path))
    assert status == os.EX_CONFIG
    assert len(complaint.splitlines()) == 1


@pytest.mark.parametrize(("capability", "word"), [("net_admin", "cap_net_admin"), ("bpf", "cap_bpf")])
def test_missing_capability(lab: Lab, good: Path, capability: str, word: str) -> None:
    """Exit 3 and one line that names the capability and how to get it."""
    drop = f"-{capability},-sys_admin" if capability == "bpf" else f"-{capability}"
    status, complaint = start(
        lab, good, "setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}", "--no-new-privs"
    )
    assert (status, len(complaint.splitlines())) == (3, 1), complaint
    assert word in complaint
    assert "mptcp-pm doctor" in complaint


def test_mptcp_disabled(lab: Lab, good: Path) -> None:
    """Exit 3 and the sysctl that enables it."""
    lab.sysctl("client", net__mptcp__enabled=0)
    status, complaint = start(lab, good)
    assert (status, len(complaint.splitlines())) == (3, 1)
    assert "net.mptcp.enabled=1" in complaint


def test_no_cgroup2(lab: Lab, good: Path) -> None:
    """Exit 3 and the mount, where sessions are to be told by cgroup."""
    good.write_text(f"selection: cgroup\n{good.read_text()}")
    unmount = 'umount -l -a -t cgroup2; exec "$@"'
    status, complaint = start(lab, good, "unshare", "--mount", "sh", "-c", unmount, "sh")
    assert (status, len(complaint.splitlines())) == (3, 1)
    assert ("--cgroupns host" if in_container() else "mount -t cgroup2") in complaint


@pytest.mark.skipif(
    (SYSCTLS / "bpf_max_subflows").exists(), reason="this is the patched kernel: it has the datapath"
)
def test_bpf_datapath_on_a_stock_kernel(lab: Lab, good: Path) -> None:
    """Exit 3: asked for what only the patched kernel has."""
    good.write_text(f"datapath: bpf\n{good.read_text()}")
    status, complaint = start(lab, good)
    assert (status, len(complaint.splitlines())) == (3, 1)
    assert "patched kernel" in complaint


def test_second_service_in_a_namespace(lab: Lab, good: Path) -> None:
    """Exit 1, and the first one is not disturbed; another namespace is another matter."""
    first = lab.service(config())
    status, complaint = start(lab, good)
    assert status == 1
    assert f"pid {first.process.pid}" in complaint
    assert first.ready()
    lab.service(config(), ns="server")


def test_configmap_swap(lab: Lab, tmp_path: Path) -> None:
    """A Kubernetes ConfigMap: the file is a link through `..data`, which is replaced atomically."""
    service = lab.service(config(), start=False)
    text = service.config_path.read_text()
    volume = tmp_path / "volume"
    for generation, name in enumerate(("a", "b")):
        (volume / f"..{generation}").mkdir(parents=True)
        (volume / f"..{generation}" / "config.yaml").write_text(
            text.replace("policies: []", f"policies: [{{name: {name}, cgroup: /{name}, path_manager: none}}]")
        )
    (volume / "..data").symlink_to("..0")
    (volume / "config.yaml").symlink_to("..data/config.yaml")
    service.config_path = volume / "config.yaml"
    service.start()

    def names() -> list[str]:
        return [p["name"] for p in service.get("/v1/policies")["policies"]]

    assert names() == ["a"]
    (volume / "..data.new").symlink_to("..1")
    os.replace(volume / "..data.new", volume / "..data")
    wait_equal(names, ["b"])


@pytest.fixture
def with_bpffs(lab: Lab, tmp_path: Path) -> Service:
    """A service, not started, that sees a bpffs of its own, which outlives it."""
    directory = tmp_path / "bpffs"
    directory.mkdir()
    script = f"mount -t bpf bpf {directory} && echo mounted && exec sleep infinity"
    holder = lab.popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    assert holder.stdout.readline() == "mounted\n"
    service = lab.service(config(policy(lab, "a"), on_exit="keep"), start=False)
    enter = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
    service.popen = lambda args, **kw: lab.popen([*enter, *args], **kw)
    return service


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_classifiers_stay_for_the_next_start(lab: Lab, with_bpffs: Service, end: str) -> None:
    """`on_exit: keep`, or SIGKILL: the programs go on; the next start takes them over, never two."""
    service = with_bpffs
    lab.server()
    lab.cgroup("a")
    service.start()
    expected = (1, service.datapath() == "bpf")
    assert count_programs(lab, "a") == expected
    getattr(service, end)()
    assert count_programs(lab, "a") == expected
    service.start()
    assert count_programs(lab, "a") == expected
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab))
    service.configure(config(policy(lab, "a"), on_exit="detach"))
    service.reload()
    service.terminate()
    assert count_programs(lab, "a") == (0, 0)
