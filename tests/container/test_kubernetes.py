# SPDX-License-Identifier: Apache-2.0
"""The pod of docker/kubernetes with its exact settings, as a container engine gets them from a kubelet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.lab.containers import IMAGE, ROOT, TRAFFIC_IMAGE, docker, docker_status
from tests.lab.netns import NAME
from tests.lab.waiting import wait_for

BASE = ROOT / "docker/kubernetes"


class Pod(NamedTuple):
    sandbox: str
    sidecar: str
    config_map: Path
    container: dict[str, Any]
    annotations: dict[str, str]

    def http(self, path: str) -> tuple[int, str]:
        """What a kubelet or Prometheus gets from the pod's address; status 0 without an answer."""
        inspected = json.loads(docker("inspect", self.sandbox))[0]
        url = f"http://{inspected['NetworkSettings']['IPAddress']}:{self.annotations['prometheus.io/port']}{path}"
        code = (
            "import sys, urllib.error, urllib.request\n"
            "try: answer = urllib.request.urlopen(sys.argv[1], timeout=5)\n"
            "except urllib.error.HTTPError as error: answer = error\n"
            "print(answer.status, answer.read().decode())"
        )
        status, text = docker_status("run", "--rm", TRAFFIC_IMAGE, "python3", "-c", code, url)
        number, _, body = text.partition(" ")
        return (int(number), body) if status == 0 else (0, text)


def write_config_map(place: Path, version: str, text: str) -> None:
    """As a kubelet does: a folder per version, and one symlink that is exchanged."""
    (place / version).mkdir(parents=True)
    (place / version / "mptcp-pm.yaml").write_text(text)
    (place / "..data_tmp").symlink_to(version)
    (place / "..data_tmp").rename(place / "..data")
    if not (place / "mptcp-pm.yaml").is_symlink():
        (place / "mptcp-pm.yaml").symlink_to("..data/mptcp-pm.yaml")


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    template = yaml.safe_load((BASE / "deployment.yaml").read_text())["spec"]["template"]
    spec = template["spec"]
    (container,) = spec["initContainers"]
    security = container["securityContext"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    config_map = tmp_path / "config"
    write_config_map(config_map, "..1", (BASE / "mptcp-pm.yaml").read_text())

    options = ["--user", f"{security['runAsUser']}:{security['runAsGroup']}"]
    options += ["--memory", container["resources"]["limits"]["memory"].removesuffix("i")]
    options += [word for drop in security["capabilities"]["drop"] for word in ("--cap-drop", drop)]
    options += [word for add in security["capabilities"]["add"] for word in ("--cap-add", add)]
    if security["readOnlyRootFilesystem"]:
        options += ["--read-only"]
    if not security["allowPrivilegeEscalation"]:
        options += ["--security-opt", "no-new-privileges:true"]
    for mount in container["volumeMounts"]:
        if "emptyDir" in volumes[mount["name"]]:
            options += ["--tmpfs", mount["mountPath"]]
        else:
            options += ["--volume", f"{config_map}:{mount['mountPath']}:ro"]
    sysctls = [
        word
        for sysctl in spec["securityContext"]["sysctls"]
        for word in ("--sysctl", f"{sysctl['name']}={sysctl['value']}")
    ]
    sandbox, sidecar = f"{NAME}-sandbox", f"{NAME}-pod"
    try:
        docker("run", "--detach", "--name", sandbox, *sysctls, TRAFFIC_IMAGE)
        network = ["--network", f"container:{sandbox}"]
        docker("run", "--detach", "--name", sidecar, *network, *options, IMAGE, *container["args"])
        yield Pod(sandbox, sidecar, config_map, container, template["metadata"]["annotations"])
    finally:
        docker("rm", "--force", "--volumes", sidecar, sandbox)


def test_pod(pod: Pod) -> None:
    """Probes and metrics answer at the pod's address, a new ConfigMap is loaded, SIGTERM ends the sidecar."""
    probes = {name: pod.container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe")}
    wait_for(lambda: pod.http(probes["startupProbe"])[0], "ready", until=lambda s: s == 200, deadline_s=30)
    assert pod.http(probes["livenessProbe"])[0] == 200
    status, metrics = pod.http(pod.annotations["prometheus.io/path"])
    assert status == 200
    assert "mptcp_pm_" in metrics
    assert pod.http("/v1/sessions")[0] == 404

    new = (BASE / "mptcp-pm.yaml").read_text().replace("name: application", "name: renamed")
    write_config_map(pod.config_map, "..2", new)
    wait_for(lambda: "renamed" in docker("exec", pod.sidecar, "mptcp-pm", "policies"), "the new policy")

    docker("stop", "--time", "20", pod.sidecar)
    assert json.loads(docker("inspect", pod.sidecar))[0]["State"]["ExitCode"] == 0
