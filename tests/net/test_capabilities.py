# SPDX-License-Identifier: Apache-2.0
"""The service under exactly the capabilities of its systemd unit."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.lab.lab import Lab
from tests.lab.scenarios import mesh, wait_pairs
from tests.lab.service import DATAPATH, ROOT, command, like_the_unit
from tests.lab.tcp_options import SEND, with_options

# One of each kind: selection, path managers, peers, routes, rules that the service
# makes, the sysctl, what is left behind, what programs report.
FILES = ("cgroups", "standby", "hostile_peers", "routes", "source_routing", "sysctl", "restore", "figures")


def test_the_units_capabilities_suffice(lab: Lab) -> None:
    """Classifier, all TCP options, path manager."""
    lab.server()
    document = with_options(lab, {"a": SEND})
    document["policies"][0]["path_manager"] = "fullmesh"
    service = lab.service(document, program=[*like_the_unit(), *command()])
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab))
    (check,) = [c for c in service.get("/v1/status")["kernel"]["checks"] if c["name"] == "cap_perfmon"]
    assert (check["ok"], check["required"]) == (DATAPATH == "bpf", False)


def test_scenarios_with_the_units_capabilities() -> None:
    """A file of each kind passes as it does with all capabilities."""
    pytest = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "--color=no",
        "--tb=short",
    ]
    done = subprocess.run(
        [*pytest, *(f"tests/net/test_{name}.py" for name in FILES)],
        cwd=ROOT,
        env={**os.environ, "MPTCP_PM_TEST_LIKE_THE_UNIT": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
