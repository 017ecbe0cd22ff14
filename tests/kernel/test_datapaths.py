# SPDX-License-Identifier: GPL-2.0-only
"""The scenarios of tests/net under the patched kernel, on both datapaths: the same subflows come out.

Two machines run at once. Where a scenario differs between the datapaths, it says so itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.lab.patched_kernel import kernel_run

DATAPATHS = ("netlink", "bpf")
SCENARIOS = [
    *(
        f"tests/net/test_{name}.py"
        for name in (
            "policies",
            "path_changes",
            "rules",
            "lifecycle",
            "start",
            "upkeep",
            "removed_cgroups",
            "keepalive",
        )
    ),
    "tests/net/test_third_party.py",
    # Plugins have nothing to do with the datapath, but for subflows that a program opens.
    "tests/net/test_tcp_option_service.py::test_every_subflow_is_changed",
]


class Run(NamedTuple):
    """``seen``: the subflows that each test found in the end, by test; see tests/net/conftest.py."""

    result: subprocess.CompletedProcess[bytes]
    seen: dict[str, Any]


def run_scenarios(datapath: str, directory: Path) -> Run:
    record = directory / f"{datapath}.jsonl"
    result = kernel_run(
        *("env", f"MPTCP_PM_TEST_DATAPATH={datapath}", f"MPTCP_PM_TEST_RECORD={record}"),
        # The machine's files are read-only: modules are compiled once to memory, not by every service.
        *("--unset=PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX=/run/python"),
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", "--tb=short"),
        *SCENARIOS,
        options=("--share", str(directory), "--timeout", "1800"),
    )
    lines = record.read_text().splitlines() if record.exists() else []
    return Run(result, {line["test"]: line["seen"] for line in map(json.loads, lines)})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    directory = tmp_path_factory.mktemp("datapaths")
    with ThreadPoolExecutor() as executor:
        results = executor.map(lambda datapath: run_scenarios(datapath, directory), DATAPATHS)
        return dict(zip(DATAPATHS, results, strict=True))


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_scenarios_pass(runs: dict[str, Run], datapath: str) -> None:
    """Every scenario passes on the datapath."""
    result = runs[datapath].result
    print(result.stdout.decode(errors="replace"))
    print(result.stderr.decode(errors="replace"), file=sys.stderr)
    assert result.returncode == 0


def test_subflows_agree(runs: dict[str, Run]) -> None:
    """Each scenario ends with the same sessions: pairs of addresses, how often, and their backup flags."""
    netlink, bpf = (runs[datapath].seen for datapath in DATAPATHS)
    assert len(netlink) > 50
    assert bpf.keys() == netlink.keys()
    assert {t: (netlink[t], bpf[t]) for t in netlink if bpf[t] != netlink[t]} == {}
