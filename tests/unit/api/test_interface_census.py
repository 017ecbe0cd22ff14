# SPDX-License-Identifier: Apache-2.0
"""What /metrics shows of interfaces, counted on a control plane in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from pm.api import interface_census
from pm.api.interface_census import InterfaceCensus, Rtt
from pm.errors import KernelRefused
from pm.model import Figures, SubflowState
from pm.sessions.ledger import OTHERS, Account
from pm.sessions.session import Session
from tests.unit.api.plane import Figures as PlaneFigures
from tests.unit.api.plane import Plane

ETH1, ETH2 = Account("sync", "eth1"), Account("sync", "eth2")


async def test_counts_by_policy_interface_and_state() -> None:
    """A session counts once for each interface on which it has an established subflow."""
    plane = Plane()
    first, second = plane.add(1), plane.add(2)
    third = plane.add(3, policy=None)
    second.subflows[1].state = SubflowState.OPENING
    first.subflows[1].stuck = True
    for session, rtt_us in ((first, 1000), (second, 3000), (third, 9000)):
        session.subflows[0].figures = Figures(rtt_us=rtt_us)
    found = await InterfaceCensus(plane).count()
    assert found.sessions == {ETH1: 2, ETH2: 1, Account(None, "eth1"): 1, Account(None, "eth2"): 1}
    assert found.subflows[ETH1, "established"] == 2
    assert (found.subflows[ETH2, "established"], found.subflows[ETH2, "opening"]) == (1, 1)
    assert (found.stuck[ETH1], found.stuck[ETH2]) == (0, 1)
    assert found.rtts == {"eth1": Rtt(0.003, 0.009)}


async def test_nothing_is_asked_unless_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """And then once in a while, however many ask."""
    plane = Plane()
    plane.add(1)
    census = InterfaceCensus(plane)
    assert plane.stats_calls == 0
    await asyncio.gather(*(census.count() for _ in range(10)))
    assert plane.stats_calls == 1
    monkeypatch.setattr(interface_census, "FRESH_S", 0.0)
    census._expires = 0.0
    await census.count()
    assert plane.stats_calls == 2


async def test_many_sessions_are_counted_and_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last comparison has their figures."""
    monkeypatch.setattr(interface_census, "ASKED_MAX", 2)
    plane = Plane()
    for number in range(3):
        plane.add(number)
    found = await InterfaceCensus(plane).count()
    assert (plane.stats_calls, found.sessions[ETH1]) == (0, 3)


async def test_policies_and_interfaces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond is added up."""
    monkeypatch.setattr(interface_census, "ACCOUNTS_MAX", 1)
    plane = Plane()
    plane.add(1)
    plane.add(2)
    found = await InterfaceCensus(plane).count()
    assert found.sessions == {ETH1: 2, Account(OTHERS, OTHERS): 2}


class Refusing(Plane):
    def stats(self, sessions: Sequence[Session]) -> Sequence[Sequence[PlaneFigures | None]]:
        raise KernelRefused("looking up sockets", 12)


async def test_a_kernel_that_refuses_costs_no_scrape() -> None:
    """The figures are those of before."""
    plane: Any = Refusing()
    plane.add(1)
    assert (await InterfaceCensus(plane).count()).sessions[ETH1] == 1
