# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.net.lab import Lab, leftovers

HERE = Path(__file__).parent


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


@pytest.fixture
def make_lab() -> Iterator[Callable[..., Lab]]:
    """``make_lab(client=3, server=1)``: labs that end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda **kw: stack.enter_context(Lab(**kw))


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """A lab of two links."""
    return make_lab()
