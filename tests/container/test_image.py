# SPDX-License-Identifier: Apache-2.0
"""The image itself: small, quick, without a shell, equal when it is built again, and known to scanners."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from pm import __version__
from pm.api.page import LIBRARIES
from tests.lab.containers import BPF, IMAGE, ROOT, STATE, docker, docker_status
from tests.lab.netns import NAME
from tests.lab.waiting import wait_equal, wait_for

SIZE_MAX = 75_000_000
POLICY = {"name": "all", "cgroup": "/", "path_manager": "fullmesh"}
PLUGIN = {"name": "level", "source": "/etc/mptcp-pm/level.c", "exid": 0x4D4C, "send": True}
LEVEL = ROOT / "docs/examples/level/level.c"


def inspect(image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return found


def python(code: str) -> str:
    """What a Python script in the image prints."""
    return docker("run", "--rm", "--network", "none", "--entrypoint", "/usr/bin/python3", IMAGE, "-c", code)


@contextmanager
def sidecar(directory: Path, policy: dict[str, Any], image: str = IMAGE) -> Iterator[str]:
    """The name of a container that has a network of its own, and a configuration with this policy."""
    directory.chmod(0o755)
    (directory / "mptcp-pm.yaml").write_text(yaml.safe_dump({"policies": [policy]}))
    (directory / "level.c").write_bytes(LEVEL.read_bytes())
    name = f"{NAME}-image"
    sysctl = "net.mptcp.pm_type=1"
    docker(
        "run", "--detach", "--name", name, "--cap-drop", "ALL", *BPF, *STATE, "--cgroupns", "host",
        "--sysctl", sysctl, "--volume", f"{directory}:/etc/mptcp-pm:ro", image,
    )  # fmt: skip
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def state(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", name))[0]["State"]
    return found


def healthy(name: str) -> bool:
    found = state(name)
    assert found["Running"], docker("logs", name)
    return bool(found["Health"]["Status"] == "healthy")


def test_size_and_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is small; the health check, which needs no shell, sees it ready; SIGTERM ends it."""
    size = inspect(IMAGE)["Size"]
    with sidecar(tmp_path, POLICY) as name:
        wait_for(lambda: healthy(name), "a sidecar that is healthy", deadline_s=20)
        records = map(json.loads, docker("logs", name).splitlines())
        (started,) = [record["time"] for record in records if record["event"] == "started"]
        begun = re.sub(r"(\.\d{6})\d*Z", r"\1Z", state(name)["StartedAt"])
        ready_s = (datetime.fromisoformat(started) - datetime.fromisoformat(begun)).total_seconds()
        docker("stop", "--time", "60", name)
        assert state(name)["ExitCode"] == 0
    with capsys.disabled():
        print(f"\n{IMAGE}: {size / 1e6:.1f} MB, ready {ready_s:.2f} s after its start")
    assert size <= SIZE_MAX


def test_stopped_while_it_starts(tmp_path: Path) -> None:
    """The kernel ignores SIGTERM for a PID 1 without a handler: there is one before the slow imports."""
    # The first module that is imported after the handler is there, and one that never ends.
    (tmp_path / "argparse.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    tmp_path.chmod(0o755)
    name = f"{NAME}-starting"
    options = ["--volume", f"{tmp_path}:/slow:ro", "--env", "PYTHONPATH=/slow"]
    try:
        docker("run", "--detach", "--name", name, "--network", "none", *options, IMAGE)
        wait_equal(lambda: docker("logs", name).strip(), "importing")
        docker("stop", "--time", "60", name)
        assert state(name)["ExitCode"] == 0
    finally:
        docker("rm", "--force", "--volumes", name)


def test_labels() -> None:
    """Who built what, by the names that registries and scanners know."""
    labels = {
        k.removeprefix("org.opencontainers.image."): v for k, v in inspect(IMAGE)["Config"]["Labels"].items()
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert labels["title"] == project["name"]
    assert labels["version"] == __version__
    assert labels["licenses"] == project["license"]
    assert labels["revision"] == head.stdout.strip()
    assert datetime.fromisoformat(labels["created"]).year >= 2024


def test_the_page_is_whole() -> None:
    """Its files, its libraries and their licences."""
    files = "import os, pm; print(*os.listdir(f'{os.path.dirname(pm.__file__)}/web/vendor'))"
    assert set(LIBRARIES) | {"htm.LICENSE", "preact.LICENSE", "uplot.LICENSE"} <= set(python(files).split())


def test_bill_of_materials() -> None:
    """Every package in it is named with its version, those of Debian also for scanners; there is no shell."""
    document = json.loads(python("print(open('/usr/share/mptcp-pm/sbom.spdx.json').read())"))
    assert document["spdxVersion"] == "SPDX-2.3"
    listed = {
        (p["externalRefs"][0]["referenceLocator"].partition("/")[0], p["name"]): p["versionInfo"]
        for p in document["packages"]
    }
    installed = json.loads(
        python(
            "import json, importlib.metadata as m\n"
            "found = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}\n"
            "print(json.dumps(found))"
        )
    )
    assert {name: v for (kind, name), v in listed.items() if kind == "pkg:pypi"} == installed
    assert {"mptcp-pm", "aiohttp", "pydantic-core"} <= installed.keys()
    assert {name for kind, name in listed if kind == "pkg:npm"} == {"htm", "preact", "uplot"}
    debian = {name for kind, name in listed if kind == "pkg:deb"}
    assert {"libc6", "python3.11-minimal", "libbpf1", "libssl3"} <= debian
    code = "import os; print(*os.listdir('/var/lib/dpkg/status.d'), '|', *os.listdir('/usr/bin'))"
    records, _, programs = python(code).partition("|")
    assert set(records.split()) == debian
    assert set(programs.split()) == {"python3", "python3.11"}


def test_built_again() -> None:
    """All of the build but Debian's packages is done anew: layers and configuration are the same."""
    again = [
        "make",
        "--no-print-directory",
        "image",
        "IMAGE_NAME=mptcp-pm-again",
        "BUILD_FLAGS=--no-cache-filter build",
    ]
    subprocess.run(again, cwd=ROOT, check=True, timeout=600)
    try:
        assert inspect("mptcp-pm-again:slim")["Id"] == inspect("mptcp-pm:slim")["Id"]
    finally:
        docker("image", "rm", "mptcp-pm-again:slim")


def test_third_party_needs_full(tmp_path: Path) -> None:
    """C of third parties: slim ends with one line that names `full`, and full compiles it, also read-only."""
    policy = {**POLICY, "options": {"plugins": [PLUGIN]}}
    with sidecar(tmp_path, policy) as name:
        wait_for(lambda: not state(name)["Running"], "a sidecar that has ended", deadline_s=20)
        assert state(name)["ExitCode"] == 3
        (line,) = docker("logs", name).splitlines()
        assert re.search(r"^`source:`.* needs a compiler.*image `full`", line)
    subprocess.run(["make", "--no-print-directory", "image-full"], cwd=ROOT, check=True, timeout=600)
    with sidecar(tmp_path, policy, "mptcp-pm:full") as name:
        wait_for(lambda: healthy(name), "a sidecar that is healthy", deadline_s=30)


def test_wrong_option_is_one_line() -> None:
    """Without a shell and without a traceback."""
    status, text = docker_status("run", "--rm", IMAGE, "--nonsense")
    assert status == 2
    assert "Traceback" not in text
