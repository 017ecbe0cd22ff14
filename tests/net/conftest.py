# SPDX-License-Identifier: Apache-2.0
"""Labs for the tests, a record of the subflows that they saw, and a check that nothing stays behind."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import Lab, leftovers
from tests.lab.oracle import Flow
from tests.lab.precompiled import precompiled_programs

HERE = Path(__file__).parent
# A file, to which each test adds a line with the subflows that it saw in the end.
RECORD = os.environ.get("MPTCP_PM_TEST_RECORD", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("root")
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root: network namespaces and cgroups"))


@pytest.fixture(scope="session", autouse=True)
def no_leftovers() -> Iterator[None]:
    """Nothing that the tests made is left on the machine when they end; leftovers fail the run."""
    yield
    if os.geteuid() == 0:
        left = list(leftovers())
        assert not left, "left behind: " + "; ".join(left)


@pytest.fixture(scope="session", autouse=True)
def programs() -> Iterator[None]:
    """The services need not compile their own programs; third parties' are compiled all the same."""
    with precompiled_programs() if os.geteuid() == 0 else contextlib.nullcontext():
        yield


@pytest.fixture
def make_lab(request: pytest.FixtureRequest) -> Iterator[Callable[..., Lab]]:
    """``make_lab(client=3, server=1)``: labs that end with the test."""
    labs: list[Lab] = []
    with contextlib.ExitStack() as stack:

        def enter(**arguments: Any) -> Lab:
            labs.append(stack.enter_context(Lab(**arguments)))
            return labs[-1]

        yield enter
    if RECORD:
        seen = [{ns: summary(sessions) for ns, sessions in lab.seen.items()} for lab in labs]
        with Path(RECORD).open("a") as file:
            file.write(json.dumps({"test": request.node.nodeid, "seen": seen}) + "\n")


def summary(sessions: list[list[Flow]]) -> Counter[str]:
    """How many sessions have which established subflows, in words."""

    def words(flow: Flow) -> str:
        return f"{flow.local} - {flow.remote}{' backup' if flow.backup else ''}"

    return Counter(", ".join(sorted(words(f) for f in flows if f.state == "ESTAB")) for flows in sessions)


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """A lab of two links."""
    return make_lab()
