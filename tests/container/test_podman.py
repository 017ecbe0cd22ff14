# SPDX-License-Identifier: Apache-2.0
"""The sidecar in a pod of Podman, the one of Debian 12, which runs in a privileged container.

Where it cannot run, these tests are skipped, and say what it answered.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.containers import IMAGE, NET_ADMIN, ROOT, STATE, TOOL, TRAFFIC_IMAGE, docker, docker_status
from tests.lab.netns import NAME
from tests.lab.oracle import parse_subflows
from tests.lab.traffic import Traffic
from tests.lab.waiting import wait_for

PODMAN_IMAGE = "mptcp-pm-test-podman"
HOST = f"{NAME}-podman"
POD_NETWORK, PEER = "pod", "peer"
PEER_ADDRESS = "10.1.0.2"
# Two networks between the pod of process $1 and a server, which announces its second address.
NETWORKS = f"""
ip netns attach {POD_NETWORK} $1
ip netns add {PEER}
ip -n {PEER} link set lo up
for number in 1 2; do
    ip -n {POD_NETWORK} link add eth$number type veth peer name eth$number netns {PEER}
    for end in 1:{POD_NETWORK} 2:{PEER}; do
        ip -n ${{end#*:}} address add 10.$number.0.${{end%:*}}/24 dev eth$number
        ip -n ${{end#*:}} link set eth$number up
    done
done
ip -n {PEER} mptcp limits set subflows 4
ip -n {PEER} mptcp endpoint add 10.2.0.2 dev eth2 signal
"""
DEFAULT_PROFILE = "/usr/share/containers/seccomp.json"
CGROUPS = ("--cap-add", "BPF", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:ro")


def inside(*command: str) -> str:
    """What a command prints on the machine that Podman has for itself."""
    return docker("exec", HOST, *command)


def podman(*command: str) -> str:
    return inside("podman", "--log-level", "fatal", *command)


@pytest.fixture(scope="module")
def machine(images: None) -> Iterator[None]:
    """A container with Podman, both images in it, and the networks."""
    directory = str(ROOT / "tests/container/podman")
    docker("build", "--quiet", "--tag", PODMAN_IMAGE, directory, deadline_s=600)
    volumes = ["--volume", "/var/lib/containers", "--volume", f"{ROOT}/docker:/docker:ro"]
    tool = ["--volume", f"{ROOT}/tests/lab/traffic_tool.py:{TOOL[1]}:ro"]
    try:
        docker("run", "--detach", "--name", HOST, "--privileged", *volumes, *tool, PODMAN_IMAGE)
        with subprocess.Popen(["docker", "save", IMAGE, TRAFFIC_IMAGE], stdout=subprocess.PIPE) as saved:
            load = ["docker", "exec", "--interactive", HOST, "podman", "load", "--quiet"]
            subprocess.run(load, stdin=saved.stdout, check=True, timeout=120, stdout=subprocess.DEVNULL)
        status, text = docker_status("exec", HOST, "podman", "run", "--rm", TRAFFIC_IMAGE, "true")
        if status != 0:
            pytest.skip(f"podman runs no container here: {text.strip().splitlines()[-1]}")
        yield
    finally:
        docker("rm", "--force", "--volumes", HOST)


@pytest.fixture
def pod(machine: None) -> Iterator[str]:
    """A pod with an application, and its networks."""
    name = "application"
    # A cgroup of the pod's own would need controllers, which Podman's machine may not have.
    options = ["--share-parent=false", "--infra-image", TRAFFIC_IMAGE, "--infra-name", "infra"]
    podman("pod", "create", "--name", name, "--network", "none", "--sysctl", "net.mptcp.pm_type=1", *options)
    podman("run", "--detach", "--name", "client", "--pod", name, TRAFFIC_IMAGE)
    inside("sh", "-ec", NETWORKS, "sh", podman("inspect", "--format", "{{.State.Pid}}", "infra").strip())
    yield name
    podman("pod", "rm", "--force", "--time", "0", name)
    inside("ip", "netns", "delete", POD_NETWORK)
    inside("ip", "netns", "delete", PEER)


def traffic(*command: str) -> Traffic:
    words = ["docker", "exec", "--interactive", HOST, *command]
    return Traffic(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))


def end(*ends: Traffic) -> None:
    for one in ends:
        assert one.process.stdin is not None
        one.process.stdin.close()
        one.process.wait(30)


def ask(*command: str) -> Any:
    return json.loads(podman("exec", "sidecar", "mptcp-pm", *command, "--json"))


def ready() -> bool:
    running = podman("inspect", "--format", "{{.State.Running}}", "sidecar").strip() == "true"
    assert running, podman("logs", "sidecar")
    return docker_status("exec", HOST, "podman", "exec", "sidecar", "mptcp-pm", "status")[0] == 0


def start_sidecar(pod: str, *options: str) -> None:
    podman("run", "--detach", "--name", "sidecar", "--pod", pod, "--cap-drop", "ALL", *options, IMAGE)
    wait_for(ready, "a sidecar that is ready", deadline_s=30)


def assert_both_networks_are_used() -> None:
    server = traffic("ip", "netns", "exec", PEER, *TOOL, "server")
    client = traffic("podman", "exec", "--interactive", "client", *TOOL, "client", PEER_ADDRESS)
    client.open()

    def established() -> set[str]:
        """By the kernel's word."""
        flows = parse_subflows(podman("exec", "client", "ss", "-tnaiOH"))
        return {flow.local for of_one in flows.values() for flow in of_one if flow.state == "ESTAB"}

    wait_for(established, "both networks", until=lambda found: found == {"10.1.0.1", "10.2.0.1"})
    assert {session["policy"] for session in ask("sessions")["sessions"]} == {"application"}
    end(client, server)


def test_a_pod_with_one_policy(pod: str) -> None:
    """NET_ADMIN alone: one policy for all of the pod."""
    start_sidecar(pod, *NET_ADMIN, *STATE, "--volume", "/docker/sidecar:/etc/mptcp-pm:ro")
    assert ask("status")["selection"] == "namespace"
    assert_both_networks_are_used()


def test_seccomp_of_podman(pod: str, tmp_path: Path) -> None:
    """Its profile refuses bpf(2) whatever the capabilities; one that allows it is enough."""
    (tmp_path / "mptcp-pm.yaml").write_text(
        "policies: [{name: application, cgroup: auto, path_manager: fullmesh}]\n"
    )
    docker("cp", f"{tmp_path}/.", f"{HOST}:/configuration")
    options = (*NET_ADMIN, *CGROUPS, *STATE, "--volume", "/configuration:/etc/mptcp-pm:ro")
    run = ["podman", "--log-level", "fatal", "run", "--rm", "--pod", pod, "--cap-drop", "ALL", *options]
    status, text = docker_status("exec", HOST, *run, IMAGE)
    (line,) = text.splitlines()
    assert status == 3
    assert line.startswith("bpf_syscall: a seccomp filter refuses bpf(2)")

    # What the `jq` of docs/deploy.md does.
    profile = json.loads(inside("cat", DEFAULT_PROFILE))
    for rule in profile["syscalls"]:
        if rule["action"] == "SCMP_ACT_ERRNO":
            rule["names"] = [name for name in rule["names"] if name != "bpf"]
    profile["syscalls"].append({"names": ["bpf"], "action": "SCMP_ACT_ALLOW"})
    (tmp_path / "seccomp.json").write_text(json.dumps(profile))
    docker("cp", f"{tmp_path}/seccomp.json", f"{HOST}:/seccomp.json")
    start_sidecar(pod, *options, "--security-opt", "seccomp=/seccomp.json")
    assert ask("status")["selection"] == "cgroup"
    assert_both_networks_are_used()
