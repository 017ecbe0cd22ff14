# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/troubleshooting.md and docs/migrating.md, each of them run on a real service."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.lab.lab import Lab
from tests.lab.scenarios import SERVER, config, make_laptop, policy, router, wait_pairs
from tests.lab.service import ROOT, Service
from tests.lab.waiting import PATIENCE

DOCUMENTS = ("troubleshooting.md", "migrating.md")
PROGRAMS = (
    "cat", "ip", "mkdir", "mptcp-pm", "mptcpize", "nmcli", "nstat", "sysctl", "systemctl", "tcpdump",
)  # fmt: skip
# They need a service manager, or a NetworkManager that runs.
NOT_HERE = ("systemctl ", "nmcli ")


def commands(document: str) -> list[str]:
    """What stands after `#` in a console block, with its input, and all code that is a command."""
    text = (ROOT / "docs" / document).read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    found = [entry for block in blocks for entry in re.split(r"^# ", block, flags=re.MULTILINE) if entry]
    rest = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found += [code for code in re.findall(r"`([^`]+)`", rest) if code.split()[0] in PROGRAMS and " " in code]
    return list(dict.fromkeys(entry.strip() for entry in found))


def where(lab: Lab, service: Service, directory: Path) -> dict[str, str]:
    """What the words in capitals, and the places of files, mean in the lab."""
    (session,) = service.sessions()
    processes = lab.cgroup_root / lab.cgroup_path("a").lstrip("/") / "cgroup.procs"
    return {
        "TOKEN": session["token"],
        "PID": processes.read_text().split()[0],
        "CGROUP": lab.cgroup_path("a"),
        "REMOTE": SERVER[4],
        "PORT": "5000",
        "LOCAL": lab.address("client", 2),
        "ROUTER": router(lab, 2, 4),
        "COMMAND": "true",
        "/etc/mptcp-pm": str(directory / "etc"),
        # A service that runs keeps its socket.
        "\npolicies:": f"\napi: {{unix: {service.socket_path}}}\npolicies:",
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_runs(lab: Lab, tmp_path: Path, document: str) -> None:
    """With exit status 0, from top to bottom, on a laptop with a session of two subflows."""
    make_laptop(lab)
    lab.server("--address", SERVER[4])
    service = lab.service(config(policy(lab, "a")))
    lab.client(SERVER[4], cgroup="a").open()
    wait_pairs(lab, [(ip, SERVER[4]) for ip in lab.addresses("client")])
    words = where(lab, service, tmp_path)
    (tmp_path / "etc").mkdir()
    shutil.copy(service.config_path, tmp_path / "etc/mptcp-pm.yaml")
    tool = tmp_path / "mptcp-pm"
    tool.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pm.cli.main "$@"\n')
    tool.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "MPTCP_PM_SOCKET": str(service.socket_path),
        "PYTHONPATH": str(ROOT),
    }
    found = commands(document)
    assert len(found) > 10
    for command in found:
        meant = re.sub("|".join(map(re.escape, words)), lambda match: words[match[0]], command)
        if command.startswith(NOT_HERE):
            continue
        if command.startswith("mptcp-pm run "):
            document_of_file = yaml.safe_load(Path(meant.split()[-1]).read_text())
            lab.service({"policies": document_of_file["policies"]}, ns="server")
            continue
        if command.startswith("tcpdump "):  # until Ctrl-C
            meant = f"timeout --preserve-status --signal INT 2 {meant}"
        process = lab.popen(
            [*service.prefix, "bash", "-ec", f"cd {tmp_path}; {meant}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        output, _ = process.communicate(timeout=30 * PATIENCE)
        assert process.returncode == 0, f"{meant}\n{output}"
