# SPDX-License-Identifier: Apache-2.0
"""Sessions get their policy late where no classifier saw them, and not after the end."""

from __future__ import annotations

import pytest

from pm.kernel import EventType
from pm.sessions.policy_assignment import NAMING_DELAY_S, PolicyAssignment
from pm.sessions.session import Session
from pm.sessions.session_table import SessionTable
from tests.unit.builders import at, event, policy
from tests.unit.sessions.world import Clock, Kernel, Loop, Selector


@pytest.mark.parametrize("ended", [False, True])
def test_cgroups_are_looked_for_until_the_end(ended: bool) -> None:
    """The kernel is asked a moment later, for every session; after ``cancel`` it is not asked any more."""
    clock, table, found = Clock(), SessionTable({}), list[Session]()
    loop, kernel, selector = Loop(clock), Kernel(), Selector()
    assignment = PolicyAssignment(
        table=table,
        selector=selector,
        diagnosis=kernel,
        serves_unowned=lambda: False,
        reconcile=found.append,
        clock=clock,
        scheduler=loop,
    )
    selector.policy = policy("fullmesh")
    for token in range(1, 201):
        session = table.create(event(EventType.CREATED, token=token), at(clock.time()))
        kernel.sessions[token] = [("10.0.1.1", 40000, "10.0.9.1", 5000, 0)]
        assignment.find_cgroup_later(session.token)
    if ended:
        assignment.cancel()
    loop.run_until(clock.now + 2 * NAMING_DELAY_S)
    assert [s.token for s in found] == ([] if ended else list(range(1, 201)))
