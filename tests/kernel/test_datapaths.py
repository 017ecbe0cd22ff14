# SPDX-License-Identifier: Apache-2.0
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
        )
    ),
    # Programs that outlive their cgroup, and that a reload changes; all cases are run by tests/net.
    *(
        f"tests/net/test_removed_cgroups.py::test_{name}"
        for name in (
            "session_keeps_its_policy[reload-4]",
            "session_keeps_its_policy[kill-6]",
            "listener_keeps_its_rules[restart]",
            "programs_go_with_the_last_socket",
        )
    ),
    *(
        f"tests/net/test_keepalive.py::test_{name}"
        for name in ("joins_of_this_end[4]", "application_before[6]", "reload", "dead_standby[4]")
    ),
    # What programs decide as the plan does; the other cases are the service's alone.
    *(
        f"tests/net/test_decisions.py::test_{name}"
        for name in (
            "a_peer_at_its_limit_is_asked_more_and_more_rarely[4]",
            "a_server_does_not_dial_its_client[4-fullmesh]",
            "a_denied_address_is_not_joined_after_the_initial_subflow_went[4-fullmesh]",
            "a_remote_that_the_peer_removed_is_not_wanted[4]",
            "a_host_with_itself_wants_one_subflow[own]",
        )
    ),
    *(
        f"tests/net/test_standby.py::test_{name}[4]"
        for name in (
            "a_deprecated_primary_is_not_down",
            "a_primary_that_the_rules_exclude_is_not_down",
            "the_next_interface_is_tried_when_a_standby_fails",
            "a_host_with_one_interface_whose_address_changes",
        )
    ),
    *(
        f"tests/net/test_routes.py::test_{name}"
        for name in (
            "subflows_leave_by_the_interface_of_their_address[fullmesh-4]",
            "subflows_leave_by_the_interface_of_their_address[backup-6]",
            "a_pair_without_a_way_sends_no_syn_and_holds_no_place[4]",
        )
    ),
    # What the classifier reports has nothing to do with the datapath, but for subflows that a program opens.
    "tests/net/test_final_figures.py",
    "tests/net/test_figures.py::test_a_closed_join_keeps_its_figures[4]",
    "tests/net/test_records.py::test_a_record_says_what_was_carried[6]",
    "tests/net/test_records.py::test_sessions_that_end_just_before_the_service",
    # An answer has a limit in seconds, which an emulated machine may need for an honest one.
    "tests/net/test_third_party.py::test_documented_example",
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
        options=("--share", str(directory), "--timeout", "2400"),
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
