# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in whatever order, sessions end up with exactly the subflows their policy wants."""

from __future__ import annotations

import errno
from collections import Counter
from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pm.kernel import EventType
from pm.model import SubflowState
from pm.policies.model import Policy
from tests.unit.builders import event, policy
from tests.unit.sessions.world import ADDRESSES, ANNOUNCED, World


class Convergence(RuleBasedStateMachine):
    """fullmesh with every event of a life: after it all, kernel, table and wanted set agree."""

    chosen: ClassVar[Policy] = policy("fullmesh", {"max_subflows": 8})
    programs: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.chosen, programs=self.programs)
        self.up = set(ADDRESSES[:2])
        self.world.addresses(self.up)
        self.world.sweeper.resync()  # as at the start: comparisons go on from now

    @rule(local=st.sampled_from(ADDRESSES))
    def connect(self, local: str) -> None:
        if local in self.up:
            self.world.connect(local)

    @precondition(lambda self: self.world.kernel.sessions)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(sorted(self.world.kernel.sessions)))
        flows = self.world.kernel.sessions.pop(token)
        self.world.kernel.tell(EventType.CLOSED, token, flows[0] if flows else ("", 0, "", 0, 0))

    @rule(ip=st.sampled_from(ADDRESSES))
    def address_comes_or_goes(self, ip: str) -> None:
        self.up ^= {ip}
        self.world.addresses(self.up)

    @precondition(lambda self: any(self.world.kernel.sessions.values()))
    @rule(data=st.data())
    def subflow_breaks(self, data: st.DataObject) -> None:
        kernel = self.world.kernel
        token = data.draw(st.sampled_from(sorted(t for t, flows in kernel.sessions.items() if flows)))
        flow = kernel.sessions[token].pop()
        kernel.broke(token, flow, errno.ETIMEDOUT)

    @rule(ip=st.sampled_from(ADDRESSES))
    def path_breaks_or_heals(self, ip: str) -> None:
        self.world.kernel.broken ^= {ip}

    @rule()
    def a_slice_runs(self) -> None:
        """Of a comparison, say: events come between two of them.

        Programs act in the kernel: to open nothing twice, the service must not be behind its events.
        """
        if self.programs:
            self.world.sessions.events.read()
        self.world.loop.run_one()

    @rule()
    def the_peer_is_at_its_limit_or_not(self) -> None:
        self.world.kernel.refusing = not self.world.kernel.refusing

    @precondition(lambda self: any(self.world.kernel.sessions.values()))
    @rule(data=st.data())
    def a_path_dies_without_a_word(self, data: st.DataObject) -> None:
        kernel = self.world.kernel
        token = data.draw(st.sampled_from(sorted(t for t, flows in kernel.sessions.items() if flows)))
        kernel.stalled.add(data.draw(st.sampled_from(kernel.sessions[token])))

    @precondition(lambda self: self.world.kernel.connecting)
    @rule()
    def the_kernel_drops_a_join_silently(self) -> None:
        self.world.kernel.connecting.pop()

    @rule()
    def routes_change(self) -> None:
        self.world.sweeper.routes_changed()

    @rule(questions=st.integers(1, 5))
    def the_kernel_has_no_memory(self, questions: int) -> None:
        self.world.kernel.no_memory = questions

    @rule(seconds=st.integers(-7200, 7200))
    def the_wall_clock_steps(self, seconds: int) -> None:
        self.world.clock.wall_offset += seconds

    @rule()
    def events_arrive(self) -> None:
        self.world.kernel.finish_connecting()
        self.world.sessions.events.read()

    @rule()
    def events_are_lost(self) -> None:
        self.world.kernel.queue.clear()
        self.world.sweeper.resync()

    @rule(seconds=st.integers(1, 100))
    def time_passes(self, seconds: int) -> None:
        self.world.loop.run_until(self.world.clock.now + seconds)

    @invariant()
    def the_cap_holds(self) -> None:
        for session in self.world.table:
            # One over, while a lost one is replaced. Not counted: those that are stuck, and those that
            # cannot be closed yet, opening to an address that the peer has withdrawn.
            remotes = self.world.remotes(session.token)
            opening = SubflowState.OPENING
            counted = [s for s in session.subflows if s.state is not opening or s.remote in remotes]
            assert sum(not s.stuck for s in counted) <= 8 + 1

    def check(self) -> None:
        self.world.kernel.broken.clear()
        self.world.kernel.refusing = False
        self.world.kernel.no_memory = 0
        self.world.addresses(self.up)
        self.world.settle()
        kernel, table = self.world.kernel, self.world.table
        if kernel.program:
            assert kernel.program.claims <= kernel.sessions.keys()
        # Nobody can find a session that lost its only subflow while events were lost.
        findable = {t: flows for t, flows in kernel.sessions.items() if flows or t in table.by_token}
        assert set(table.by_token) == set(findable)
        for token, flows in findable.items():
            session = table.by_token[token]
            assert Counter((s.local, s.local_port) for s in session.subflows) == Counter(f[:2] for f in flows)
            wanted = {(local, remote) for local in self.up for remote in self.world.remotes(token)}
            if wanted:  # else the last subflow stays, whatever it is
                pairs = Counter((f[0], f[2]) for f in flows)
                stalled = self.world.kernel.stalled & set(flows)
                assert pairs.total() == min(len(wanted), 8), (pairs, session)
                assert set(pairs) <= wanted
                assert len(pairs) == pairs.total()
                assert not stalled or len(flows) == 1, (stalled, session)


class ConvergenceAtTheEnd(Convergence):
    @precondition(lambda self: self.world.kernel.sessions)
    @rule(data=st.data(), address_id=st.sampled_from(sorted(ANNOUNCED)))
    def the_peer_announces(self, data: st.DataObject, address_id: int) -> None:
        kernel = self.world.kernel
        token = data.draw(st.sampled_from(sorted(kernel.sessions)))
        kernel.queue.append(
            event(
                EventType.ANNOUNCED,
                token=token,
                remote=ANNOUNCED[address_id],
                remote_port=0,
                remote_id=address_id,
            )
        )

    @precondition(lambda self: self.world.kernel.sessions)
    @rule(data=st.data(), address_id=st.sampled_from([0, *sorted(ANNOUNCED)]))
    def the_peer_removes(self, data: st.DataObject, address_id: int) -> None:
        kernel = self.world.kernel
        kernel.remove_remote(data.draw(st.sampled_from(sorted(kernel.sessions))), address_id)

    def teardown(self) -> None:
        self.check()


class ConvergenceBehindPrograms(Convergence):
    """The same end; and what a program opens in the kernel, the service does not open too."""

    programs = True

    def teardown(self) -> None:
        self.check()

    @invariant()
    def nothing_is_opened_twice(self) -> None:
        kernel = self.world.kernel
        stalled = kernel.stalled
        there = Counter(
            (token, flow[0], flow[2])
            for token, flows in kernel.sessions.items()
            for flow in flows
            if flow not in stalled
        )
        there.update((token, flow[0], flow[2]) for token, flow in kernel.connecting)
        assert all(number == 1 for number in there.values()), there


TestConvergenceBehindPrograms = ConvergenceBehindPrograms.TestCase
TestConvergenceBehindPrograms.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)

TestConvergence = ConvergenceAtTheEnd.TestCase
TestConvergence.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
