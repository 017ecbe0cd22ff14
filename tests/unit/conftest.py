# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoints, entry_points

import pytest
import uvloop
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

from pm.log_budget import get_limited_logger
from pm.path_managers import registry

# No deadline per example: the machine is shared. Derandomised: a run tells of the change under test.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The service's own loop: that of asyncio has other transports and buffers."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True, scope="session")
def built_in_path_managers() -> Iterator[None]:
    """Whatever else is installed beside them, such as the examples of the documentation."""

    def ours(*, group: str) -> EntryPoints:
        return EntryPoints(e for e in entry_points(group=group) if e.value.startswith("pm."))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", ours)
        registry.installed.cache_clear()
        yield
    registry.installed.cache_clear()


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """The service's code never blocks the event loop: a blocking call of pm/ inside one is an error."""
    with blockbuster_ctx("pm") as guard:
        yield guard


@pytest.fixture(autouse=True)
def full_log_budget() -> None:
    """No test finds the log's budget used up by another."""
    get_limited_logger().write_summaries(ending=True)
