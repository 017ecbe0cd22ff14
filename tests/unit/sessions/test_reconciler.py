# SPDX-License-Identifier: GPL-2.0-only
"""Whatever happens in whatever order, sessions end up with exactly the subflows their policy wants.

The kernel here is a model of the few rules that tests/net has seen the real one follow: commands are
refused before ESTABLISHED or for unknown tokens, a subflow is established or closed by a later event,
destroying a subflow is silent or tells.
"""

from __future__ import annotations

import errno
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pm.errors import KernelRefused, NotFound
from pm.kernel import CreateCommand, EventsLost, EventType, MptcpEvent, RawEvent, SessionInfo, SubflowRecord
from pm.model import LocalAddress, Pair, Subflow, SubflowState
from pm.path_managers.registry import registry
from pm.policies.model import Policy
from pm.sessions.assembly import assemble
from pm.sessions.session import Session
from tests.unit.builders import REMOTE, REMOTE_PORT, address, event, policy, record

ADDRESSES = [f"10.0.{i}.1" for i in range(1, 5)]
ANNOUNCED = {1: "10.0.9.2", 2: "10.0.9.3"}
Flow = tuple[str, int, str, int, int]


class Clock:
    """Stands in for the time module in the modules under test, and for the loop's timer."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall_offset = 0.0

    def time(self) -> float:
        return self.now + self.wall_offset

    def monotonic(self) -> float:
        return self.now


class Timer:
    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when, self.callback, self.cancelled = when, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.timers: list[Timer] = []

    def call_at(self, when: float, callback: Callable[..., object], *arguments: object) -> Timer:
        timer = Timer(when, partial(callback, *arguments))
        self.timers.append(timer)
        return timer

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: object) -> Timer:
        return self.call_at(self.clock.now + delay, callback, *arguments)

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> Timer:
        return self.call_at(self.clock.now, callback, *arguments)

    def add_reader(self, fd: int, callback: Callable[..., object], *arguments: object) -> None: ...
    def remove_reader(self, fd: int) -> None: ...

    def run_one(self) -> None:
        """The first timer that is due: one slice of whatever is going on."""
        due = [t for t in self.timers if not t.cancelled and t.when <= self.clock.now]
        if due:
            timer = min(due, key=lambda t: t.when)
            self.timers.remove(timer)
            timer.callback()

    def run_until(self, when: float) -> None:
        while due := [t for t in self.timers if not t.cancelled and t.when <= when]:
            timer = min(due, key=lambda t: t.when)
            self.timers.remove(timer)
            self.clock.now = max(self.clock.now, timer.when)
            timer.callback()
        self.timers = [t for t in self.timers if not t.cancelled]
        self.clock.now = max(self.clock.now, when)


def sent(event: MptcpEvent, outcomes: list[KernelRefused | None] | None = None) -> RawEvent:
    """An event that decodes to ``event``."""
    return RawEvent(event.type, b"", lambda _: event, outcomes)


class Kernel:
    """Sessions and their subflows, as (local, local port, remote, remote port, id)."""

    def __init__(self) -> None:
        self.sessions: dict[int, list[Flow]] = {}
        self.connecting: list[tuple[int, Flow]] = []
        self.queue: list[MptcpEvent] = []
        self.armed: dict[int, list[CreateCommand]] = {}
        self.broken: set[str] = set()  # local addresses from which joins fail
        self.refusing = False  # the peer takes a join's SYN, and then refuses it
        self.initial: set[Flow] = set()
        self.stalled: set[Flow] = set()  # what they send is not acknowledged
        self.removed: dict[int, set[int]] = {}  # per session: the peer's address ids that it withdrew
        self.program: Program | None = None
        self.ports = itertools.count(40000)

    def fileno(self) -> int:
        return -1

    def arm(self, token: int, commands: Iterable[CreateCommand]) -> None:
        self.armed[token] = list(commands)

    def disarm(self, token: int | None = None) -> None:
        if token is None:
            self.armed.clear()
        else:
            self.armed.pop(token, None)

    def read_events(self, limit: int) -> Iterator[RawEvent]:
        while self.queue:
            event = self.queue.pop(0)
            if event.type == EventType.ESTABLISHED and event.token in self.armed:
                yield sent(event, [self.outcome(event.token, p) for p in self.armed.pop(event.token)])
            else:
                yield sent(event)

    def outcome(self, token: int, command: CreateCommand) -> KernelRefused | None:
        try:
            self.create_subflow(token, command)
        except KernelRefused as e:
            return e
        return None

    def drain(self, limit: int) -> bool:
        return True

    def backlog(self) -> int:
        return 0

    def prepare_subflow(
        self, local: str, local_id: int, remote: str, remote_port: int, *, backup: bool, ifindex: int = 0
    ) -> CreateCommand:
        return CreateCommand(json.dumps([local, remote, remote_port, local_id]).encode(), b"")

    def create_subflow(self, token: int, command: CreateCommand) -> None:
        local, remote, remote_port, local_id = json.loads(command.head)
        if token not in self.sessions:
            raise KernelRefused("open subflow", errno.EINVAL, "invalid token")
        self.connecting.append((token, (local, next(self.ports), remote, remote_port, local_id)))

    def destroy_subflow(
        self, token: int, local: str, local_port: int, remote: str, remote_port: int, *, socket_family: int
    ) -> None:
        flows = self.sessions.get(token, [])
        for flow in flows:
            if flow[:4] == (local, local_port, remote, remote_port):
                flows.remove(flow)
                self.tell(EventType.SUB_CLOSED, token, flow)
                return
        for connecting in self.connecting:
            if connecting[0] == token and connecting[1][:4] == (local, local_port, remote, remote_port):
                self.connecting.remove(connecting)
                self.tell(EventType.SUB_CLOSED, token, connecting[1])
                return
        raise KernelRefused("close subflow", errno.ESRCH)

    def set_backup(self, *args: Any, **kwargs: Any) -> None: ...
    def announce(self, *args: Any) -> None: ...
    def withdraw(self, *args: Any) -> None: ...

    def tell(self, kind: EventType, token: int, flow: Flow, **fields: Any) -> None:
        self.queue.append(
            event(
                kind,
                token=token,
                local=flow[0],
                local_port=flow[1],
                remote=flow[2],
                remote_port=flow[3],
                local_id=flow[4],
                **fields,
            )
        )

    def finish_connecting(self) -> None:
        for _ in range(len(self.connecting)):  # those that begin meanwhile come next time
            token, flow = self.connecting.pop(0)
            if token not in self.sessions:
                continue
            if flow[0] in self.broken:
                self.broke(token, flow, errno.ECONNREFUSED)
            elif self.refusing:
                self.tell(EventType.SUB_ESTABLISHED, token, flow)
                self.broke(token, flow, errno.ECONNRESET)
            else:
                self.sessions[token].append(flow)
                self.tell(EventType.SUB_ESTABLISHED, token, flow)

    def remove_remote(self, token: int, address_id: int) -> None:
        """RM_ADDR: subflows to the address are closed; joins in SYN_SENT have remote id 0 and go silently."""
        ip = ANNOUNCED.get(address_id, REMOTE)
        for flow in [flow for flow in self.sessions[token] if flow[2] == ip]:
            self.sessions[token].remove(flow)
            self.tell(EventType.SUB_CLOSED, token, flow)
        if address_id == 0:
            self.connecting = [c for c in self.connecting if c[0] != token]
        self.removed.setdefault(token, set()).add(address_id)
        self.queue.append(event(EventType.REMOVED, token=token, remote_id=address_id))

    def broke(self, token: int, flow: Flow, error: int) -> None:
        if self.program:
            self.program.on_closed(token)
        self.tell(EventType.SUB_CLOSED, token, flow, error=error)

    # pm.kernel.Diagnosis

    def session_infos(self, tokens: Sequence[int]) -> list[SessionInfo | None]:
        return [
            SessionInfo(
                token=token, state=1, uid=0, inode=0, cgroup_id=7, fallback=False, extra_subflows=0,
                addresses_announced=0, addresses_accepted=0, counted=True, retransmits=0,
                bytes_retransmitted=0, bytes_sent=0, bytes_received=0, bytes_acked=0,
            )
            if token in self.sessions
            else None
            for token in tokens
        ]  # fmt: skip

    def bytes_moved(self, token: int, subflows: Sequence[Subflow]) -> int:
        return 0

    def dump_subflows(self, *, opening: bool = False) -> Iterator[list[SubflowRecord]]:
        """A session per part, as it is when the part is asked for."""
        for token in list(self.sessions) if not opening else ():
            yield self.records(self.sessions.get(token, []), token)
        yield self.opening()

    def records(self, flows: Sequence[Flow], token: int) -> list[SubflowRecord]:
        return [
            _record(
                token,
                flow,
                is_initial=flow in self.initial,
                unacked=int(flow in self.stalled),
                backoff=4 * (flow in self.stalled),
            )
            for flow in flows
        ]

    def opening(self) -> list[SubflowRecord]:
        return [
            _record(token, flow, is_initial=False, is_established=False)
            for token, flow in self.connecting
            if token in self.sessions
        ]

    def find_subflows(self, subflows: Sequence[Subflow | SubflowRecord]) -> list[SubflowRecord | None]:
        there = [r for token, flows in self.sessions.items() for r in self.records(flows, token)]
        by_name = {(r.local, r.local_port, r.remote, r.remote_port): r for r in there + self.opening()}
        return [by_name.get((s.local, s.local_port, s.remote, s.remote_port)) for s in subflows]


def _record(token: int, flow: Flow, **fields: Any) -> SubflowRecord:
    local, local_port, remote, remote_port, local_id = flow
    return record(
        token=token,
        local=local,
        local_port=local_port,
        remote=remote,
        remote_port=remote_port,
        local_id=local_id,
        **fields,
    )


class Program:
    """fullmesh of the bpf datapath (bpf_pm/path_managers/fullmesh.c): opens in the kernel's callbacks."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.locals: set[str] = set()
        self.retries: Counter[int] = Counter()
        self.claims: set[int] = set()

    def program_of(self, token: int, policy: Policy) -> str | None:
        return "fullmesh"

    def claimed(self) -> list[int]:
        return list(self.claims)

    def release(self, token: int) -> None:
        self.claims.discard(token)

    def on_established(self, token: int) -> None:
        self.claims.add(token)
        kernel = self.kernel
        there = {f[0] for f in kernel.sessions[token]} | {f[0] for t, f in kernel.connecting if t == token}
        for local in sorted(self.locals - there):
            kernel.connecting.append((token, (local, next(kernel.ports), REMOTE, REMOTE_PORT, 9)))

    def on_closed(self, token: int) -> None:
        self.retries[token] += 1
        if self.retries[token] <= 3:
            self.on_established(token)


class Selector:
    policy: Policy | None = None

    def classify(self, local: str, local_port: int, remote: str, remote_port: int) -> Policy | None:
        return self.policy

    def policy_of_cgroup(self, cgroup_id: int) -> Policy | None:
        return self.policy


class World:
    """A reconciler on a model kernel, with a clock that only tests move."""

    def __init__(self, chosen: Policy, *, programs: bool = False) -> None:
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.kernel = Kernel()
        if programs:
            self.kernel.program = Program(self.kernel)
        self.selector = Selector()
        self.selector.policy = chosen
        self.counters: Counter[str] = Counter()
        self.sessions = assemble(
            commands=self.kernel,
            diagnosis=self.kernel,
            selector=self.selector,
            path_managers=registry(),
            publish=lambda *args: None,
            counters=self.counters,
            observe_join=lambda seconds: None,
            clock=self.clock,
            scheduler=self.loop,
            programs=self.kernel.program,
        )
        self.reconciler = self.sessions.reconciler
        self.table = self.sessions.table
        self.tokens = itertools.count(1)

    def addresses(self, ips: set[str]) -> None:
        self.reconciler.addresses_changed([address(ip, int(ip.split(".")[2])) for ip in sorted(ips)])
        if self.kernel.program:
            self.kernel.program.locals = set(ips)
        self.sweep()

    def sweep(self) -> None:
        for session in self.table:
            self.reconciler.reconcile(session)

    def remotes(self, token: int) -> set[str]:
        """Where the peer of a session can be reached, as far as the service was told."""
        session = self.table.by_token[token]
        told = {r.ip for r in session.remotes}
        return told if session.initial_removed else {REMOTE, *told}

    def connect(self, local: str) -> int:
        token = next(self.tokens)
        flow = (local, next(self.kernel.ports), REMOTE, REMOTE_PORT, 0)
        self.kernel.sessions[token] = [flow]
        self.kernel.initial.add(flow)
        self.kernel.tell(EventType.CREATED, token, flow)
        self.kernel.tell(EventType.ESTABLISHED, token, flow)
        if self.kernel.program:
            self.kernel.program.on_established(token)
        return token

    def settle(self) -> None:
        """Let every event arrive and every retry come due."""
        for _ in range(40):
            self.kernel.finish_connecting()
            self.sessions.events.read()
            self.loop.run_until(self.clock.now + 400)
            if not self.kernel.queue and not self.kernel.connecting:
                return
        raise AssertionError("the reconciler does not come to rest")


class Convergence(RuleBasedStateMachine):
    """fullmesh with every event of a life: after it all, kernel, table and wanted set agree."""

    chosen: ClassVar[Policy] = policy("fullmesh", {"max_subflows": 8})
    programs: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.chosen, programs=self.programs)
        self.up = set(ADDRESSES[:2])
        self.world.addresses(self.up)
        self.world.reconciler.resync()  # as at the start: comparisons go on from now

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
        self.world.reconciler.routes_changed()
        self.world.sweep()

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
        self.world.reconciler.resync()

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


@pytest.fixture
def world() -> World:
    made = World(policy("fullmesh"))
    made.addresses(set(ADDRESSES[:2]))
    return made


def only(world: World) -> Session:
    (session,) = world.table
    return session


def test_established_opens_at_once(world: World) -> None:
    """The command is given within the handling of ESTABLISHED: no timer, no task in between."""
    world.connect(ADDRESSES[0])
    world.sessions.events.read()
    assert [flow[0] for _, flow in world.kernel.connecting] == [ADDRESSES[1]]


def test_what_was_learned_is_forgotten_when_addresses_change(world: World) -> None:
    """The second session like the first gets its commands from memory, never from an address that went."""
    for ips in ({ADDRESSES[0], ADDRESSES[1]}, {ADDRESSES[0], ADDRESSES[2]}):
        world.addresses(ips)
        for _ in range(2):
            world.kernel.connecting.clear()
            world.connect(ADDRESSES[0])
            world.sessions.events.read()
            assert {flow[0] for _, flow in world.kernel.connecting} == ips - {ADDRESSES[0]}
            assert len(world.table.by_token[max(world.kernel.sessions)].subflows) == 2


def test_first_commands_refused_are_retried(world: World) -> None:
    """A refusal of a remembered command is recorded and retried like any other."""
    world.connect(ADDRESSES[0])
    world.settle()
    create, world.kernel.create_subflow = world.kernel.create_subflow, refusing  # type: ignore[method-assign]
    token = world.connect(ADDRESSES[0])
    world.sessions.events.read()
    assert world.table.by_token[token].retries
    world.kernel.create_subflow = create  # type: ignore[method-assign]
    world.settle()
    assert len(world.table.by_token[token].subflows) == 2


def refusing(token: int, command: CreateCommand) -> None:
    raise KernelRefused("open subflow", errno.ENOBUFS)


def test_session_without_classification_is_found_by_its_cgroup(world: World) -> None:
    """The classifier missed it: its cgroup's id names the policy a moment later."""
    chosen, world.selector.policy = world.selector.policy, None
    world.connect(ADDRESSES[0])
    world.sessions.events.read()
    assert not world.kernel.connecting
    world.selector.policy = chosen
    world.settle()
    assert len(only(world).subflows) == 2


def test_refusal_is_retried_with_growing_delay(world: World) -> None:
    """A broken path is tried again 1, 2, 4 ... seconds later, not in a loop."""
    world.kernel.broken = {ADDRESSES[1]}
    world.connect(ADDRESSES[0])
    tries = []
    for _ in range(300):
        world.sessions.events.read()
        if world.kernel.connecting:
            tries.append(world.clock.now)
        world.kernel.finish_connecting()
        world.sessions.events.read()
        world.loop.run_until(world.clock.now + 0.1)
    gaps = [round(b - a) for a, b in itertools.pairwise(tries)]
    assert gaps == [1, 2, 4, 8]


def test_kernel_path_manager_session_is_left_alone(world: World) -> None:
    """The kernel refuses commands on sessions of its own path manager: asked once, never again."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise KernelRefused("open subflow", errno.EINVAL, "invalid request; userspace PM not selected")

    world.kernel.create_subflow = refuse  # type: ignore[method-assign]
    world.connect(ADDRESSES[0])
    world.settle()
    assert only(world).managed is False
    assert world.counters["open_refused"] == 1


def test_events_lost_is_survived(world: World) -> None:
    """ENOBUFS: the sessions whose events were dropped are found by the dump."""
    world.connect(ADDRESSES[0])
    world.kernel.queue.clear()

    def lost(limit: int) -> Iterator[RawEvent]:
        world.kernel.read_events = read  # type: ignore[method-assign]
        raise EventsLost

    read, world.kernel.read_events = world.kernel.read_events, lost  # type: ignore[method-assign]
    world.sessions.events.read()
    world.loop.run_until(world.clock.now)
    assert [flow[0] for _, flow in world.kernel.connecting] == [ADDRESSES[1]]
    assert world.counters["events_lost"] == 1


def test_broken_path_manager_ends_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third party's exception is counted, its session stays as it is."""

    def broken(*args: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(registry()["fullmesh"], "wanted", broken)
    world.connect(ADDRESSES[0])
    world.sessions.events.read()
    assert world.counters["path_manager_errors"] > 0
    assert len(only(world).subflows) == 1


def test_by_hand_on_what_is_not_there(world: World) -> None:
    """Unknown sessions and subflows are NotFound, with the command that lists them."""
    with pytest.raises(NotFound, match="mptcp-pm sessions"):
        world.sessions.operator_commands.open_subflow(
            99, Pair(ADDRESSES[1], REMOTE, REMOTE_PORT), backup=False
        )
    world.connect(ADDRESSES[0])
    world.sessions.events.read()
    with pytest.raises(NotFound, match="mptcp-pm session 0x"):
        world.sessions.operator_commands.close_subflow(only(world).token, "nothing")


def test_address_ids_are_reused_when_they_run_out(world: World) -> None:
    """255 ids for addresses that came and went over a long life."""
    for i in range(300):
        ip = f"10.1.{i // 250}.{i % 250 + 1}"
        world.reconciler.addresses_changed([LocalAddress(ip, 24, 2, "eth0", True, False, "")])
        assert 1 <= world.sessions.addresses.current.ids[ip] <= 255
