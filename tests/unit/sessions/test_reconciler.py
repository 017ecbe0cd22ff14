# SPDX-License-Identifier: Apache-2.0
"""The reconciler, event by event."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pm.api.views import session_view
from pm.clock import moment
from pm.errors import KernelRefused, LimitReached, NotFound
from pm.kernel import (
    CreateCommand,
    EventsLost,
    EventType,
    RawEvent,
    TcpState,
)
from pm.model import LocalAddress, Pair, Want
from pm.path_managers.registry import registry
from pm.policies.model import Start
from pm.sessions.backoff import EARLY_RETRY_S
from pm.sessions.failures import FAILURES_MAX, note_failure
from pm.sessions.history import HistoryEvent
from pm.sessions.session import Session
from pm.sessions.time_limit import TookTooLong
from tests.unit.builders import REMOTE, REMOTE_PORT, event, policy
from tests.unit.sessions import world as world_module
from tests.unit.sessions.world import ADDRESSES, ANNOUNCED, World


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


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt, RecursionError])
def test_broken_path_manager_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """What a third party raises is counted, and noted once; its session stays as it is."""

    def broken(*args: Any) -> Any:
        raise error("no\nway")

    monkeypatch.setattr(registry()["fullmesh"], "wanted", broken)
    world.connect(ADDRESSES[0])
    world.sessions.events.read()
    world.sweep()
    assert world.counters["path_manager_errors"] == 2
    session = only(world)
    assert len(session.subflows) == 1
    notes = [e.detail for e in session.history if e.event is HistoryEvent.PATH_MANAGER_FAILED]
    assert notes == [f"fullmesh: raised {error.__name__}: no way"]


@pytest.mark.parametrize(
    "change",
    [
        lambda session, addresses: session.subflows.clear(),
        lambda session, addresses: setattr(session.subflows[0], "stuck", True),
        lambda session, addresses: setattr(session.subflows[0], "backup", True),
        lambda session, addresses: setattr(session, "remote", "192.0.2.1"),
        lambda session, addresses: session.unroutable.clear(),
        lambda session, addresses: addresses.pop(),
    ],
)
def test_a_third_party_changes_nothing(monkeypatch: pytest.MonkeyPatch, change: Callable[..., Any]) -> None:
    """It has a copy of the session, which refuses to be changed; its answer is judged by the original."""

    class Changes:
        Parameters = registry()["fullmesh"].Parameters

        @staticmethod
        def wanted(session: Any, addresses: Any, parameters: Any) -> Any:
            change(session, addresses)
            return {}

    monkeypatch.setattr(world_module, "registry", lambda: registry() | {"fullmesh": Changes})
    world = World(policy("fullmesh"))
    world.addresses(set(ADDRESSES[:2]))
    world.connect(ADDRESSES[0])
    world.sessions.events.read()
    session = only(world)
    assert session.complaint.startswith("raised ")
    assert len(session.subflows) == 1
    assert session.remote == REMOTE
    assert not session.subflows[0].backup
    assert not session.subflows[0].stuck
    assert [a.ip for a in world.sessions.addresses.current.usable] == ADDRESSES[:2]


def test_what_fails_in_a_preview_still_serves_sessions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for it is told, also while it is at rest; only what fails for a session rests for all."""

    def slow(*args: Any) -> Any:
        raise TookTooLong("took longer than 1 s")

    mesh = registry()["fullmesh"].wanted
    monkeypatch.setattr(registry()["fullmesh"], "wanted", slow)
    of = world.sessions.preview
    chosen = policy("fullmesh")
    problem = "took longer than 1 s: it is not asked for 60 s"
    assert of.explain(chosen, ADDRESSES[0], REMOTE, REMOTE_PORT).session.complaint == problem
    monkeypatch.setattr(registry()["fullmesh"], "wanted", mesh)
    assert of.explain(chosen, ADDRESSES[0], REMOTE, REMOTE_PORT).session.complaint == problem
    world.connect(ADDRESSES[0])
    world.settle()
    assert len(only(world).subflows) == 2
    monkeypatch.setattr(registry()["fullmesh"], "wanted", slow)
    world.sweep()
    monkeypatch.setattr(registry()["fullmesh"], "wanted", mesh)
    world.sweep()
    assert only(world).complaint == problem


def test_broken_path_manager_leaves_what_is_lost_to_us(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its session stays as it is, but a subflow whose address is gone is closed all the same."""
    world.connect(ADDRESSES[0])
    world.settle()
    assert len(only(world).subflows) == 2
    monkeypatch.setattr(registry()["fullmesh"], "wanted", lambda *args: None)
    world.addresses({ADDRESSES[0]})
    world.settle()
    assert [s.local for s in only(world).subflows] == [ADDRESSES[0]]


def test_a_session_has_at_most_64_subflows_of_ours(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a path manager asks for; the operator gets no more either."""
    many = {Pair(ADDRESSES[1], REMOTE, REMOTE_PORT): Want(1_000_000)}
    monkeypatch.setattr(registry()["fullmesh"], "wanted", lambda *args: many)
    world.connect(ADDRESSES[0])
    world.settle()
    session = only(world)
    assert len(session.subflows) == 64
    assert session.complaint == "asks for 1000000 subflows: a session has at most 64"
    with pytest.raises(LimitReached, match="64 subflows of this end already: close one first"):
        world.sessions.operator_commands.open_subflow(
            session.token, Pair(ADDRESSES[1], REMOTE, REMOTE_PORT), backup=False
        )


def test_subflows_of_a_pair_are_refused_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One try of a refused pair, then backoff: not one for each subflow that is wanted on it."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise KernelRefused("open subflow", errno.EINVAL)

    world.kernel.create_subflow = refuse  # type: ignore[method-assign]
    many = {Pair(ADDRESSES[1], REMOTE, REMOTE_PORT): Want(50)}
    monkeypatch.setattr(registry()["fullmesh"], "wanted", lambda *args: many)
    world.connect(ADDRESSES[0])
    world.sessions.events.read()
    assert world.counters["open_refused"] == 1


def test_an_action_that_fails_costs_its_session_only(world: World) -> None:
    """A bug on the way to the kernel: backoff, as for what the kernel refuses."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OverflowError("too large")

    world.kernel.create_subflow = fail  # type: ignore[method-assign]
    world.connect(ADDRESSES[0])
    world.sessions.events.read()
    (retry,) = (only(world).retries or {}).values()
    assert "OverflowError: too large" in retry.reason


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
        world.sweeper.addresses_changed([LocalAddress(ip, 24, 2, "eth0", True, False, "")])
        assert 1 <= world.sessions.addresses.current.ids[ip] <= 255


@pytest.mark.parametrize("step", [-3600, 3600])
def test_start_after_runs_on_the_monotonic_clock(step: int) -> None:
    """The wall clock is stepped by an hour: the first subflow comes neither at once nor an hour later."""
    world = World(policy("fullmesh", start=Start(after=2.0)))
    world.addresses(set(ADDRESSES[:2]))
    world.connect(ADDRESSES[0])
    world.sessions.events.read()
    world.clock.wall_offset += step
    world.loop.run_until(world.clock.now + 1.9)
    assert not world.kernel.connecting
    world.loop.run_until(world.clock.now + 0.2)
    assert [flow[0] for _, flow in world.kernel.connecting] == [ADDRESSES[1]]


@pytest.mark.parametrize("step", [-3600, 3600])
def test_retries_run_on_the_monotonic_clock(world: World, step: int) -> None:
    """And the age of a session too."""
    world.kernel.broken = {ADDRESSES[1]}
    world.connect(ADDRESSES[0])
    world.sessions.events.read()
    world.kernel.finish_connecting()
    world.sessions.events.read()
    world.clock.wall_offset += step
    world.loop.run_until(world.clock.now + 1.1)
    assert [flow[0] for _, flow in world.kernel.connecting] == [ADDRESSES[1]]


def test_history_is_in_order_of_time(world: World) -> None:
    """What one event causes has the time of that event: nothing is dated before what was noted earlier."""
    clock, now = world.clock, world.clock.now

    def ticking() -> float:
        clock.wall_offset += 0.001  # every look at the clock takes a moment
        return now + clock.wall_offset

    clock.time = ticking  # type: ignore[method-assign]
    chosen, world.selector.policy = world.selector.policy, None
    world.connect(ADDRESSES[0])
    world.selector.policy = chosen  # the classifier was late
    world.sessions.events.read()
    world.kernel.finish_connecting()
    world.sessions.events.read()
    times = [entry.time for entry in only(world).history]
    assert [entry.event for entry in only(world).history][:3] == ["created", "policy", "established"]
    assert times == sorted(times)


def test_an_adopted_session_has_its_established(world: World) -> None:
    """It was there before the service: found, then established."""
    world.connect(ADDRESSES[0])
    world.kernel.queue.clear()
    world.sweeper.resync()
    world.loop.run_until(world.clock.now)
    assert [entry.event for entry in only(world).history][:2] == ["found", "established"]
    assert only(world).established is not None


def test_what_comparisons_set_right_is_counted(world: World) -> None:
    """Not what the first one takes over; and what the kernel has dropped without an event has a name."""

    def compare() -> None:
        world.kernel.queue.clear()
        world.sweeper.resync()
        world.loop.run_until(world.clock.now + 120)

    world.connect(ADDRESSES[0])
    compare()
    assert world.counters["audit_repairs"] == world.counters["join_dropped"] == 0
    assert world.kernel.connecting
    world.kernel.connecting.clear()
    compare()
    assert world.counters["join_dropped"] >= 1
    repairs = world.counters["audit_repairs"]
    assert repairs == world.counters["join_dropped"]
    world.connect(ADDRESSES[0])
    compare()
    assert world.counters["audit_repairs"] > repairs


def test_a_withdrawn_remote_is_not_among_the_failed(world: World) -> None:
    """Nobody tries it again, so nobody waits for it."""
    world.kernel.broken = {ADDRESSES[1]}
    token = world.connect(ADDRESSES[0])
    world.sessions.events.read()
    world.kernel.queue.append(
        event(EventType.ANNOUNCED, token=token, remote=ANNOUNCED[1], remote_port=0, remote_id=1)
    )
    for _ in range(2):
        world.sessions.events.read()
        world.kernel.finish_connecting()
    world.sessions.events.read()
    assert {pair.remote for pair in only(world).failing} == {REMOTE, ANNOUNCED[1]}
    world.kernel.remove_remote(token, 1)
    world.sessions.events.read()
    shown = session_view(only(world), None, None, [], moment(world.clock))["failed"]
    assert {failed["remote"] for failed in shown} == {REMOTE}


def test_a_peer_does_not_end_the_backoff(world: World) -> None:
    """It withdraws and announces the same address again and again: the pair is tried every few seconds."""
    token = world.connect(ADDRESSES[0])
    world.settle()
    world.kernel.broken = set(ADDRESSES)
    opened = world.counters["open"]
    for _ in range(100):  # ten seconds
        world.kernel.queue.append(
            event(EventType.ANNOUNCED, token=token, remote=ANNOUNCED[1], remote_port=0, remote_id=1)
        )
        world.sessions.events.read()
        world.kernel.finish_connecting()
        world.sessions.events.read()
        world.kernel.remove_remote(token, 1)
        world.sessions.events.read()
        world.loop.run_until(world.clock.now + 0.1)
    assert world.counters["open"] - opened <= 2 * 4


def test_opening_to_withdrawn_addresses_is_bounded(world: World) -> None:
    """The peer announces address after address that does not answer: what is opening holds its place."""
    token = world.connect(ADDRESSES[0])
    world.settle()
    for i in range(100):
        remote = f"10.99.0.{i + 1}"
        world.kernel.queue.append(
            event(EventType.ANNOUNCED, token=token, remote=remote, remote_port=0, remote_id=1)
        )
        world.kernel.queue.append(event(EventType.REMOVED, token=token, remote_id=1))
        world.sessions.events.read()
        world.loop.run_until(world.clock.now + 0.04)
        assert len(world.kernel.connecting) <= 8
    world.loop.run_until(world.clock.now + 10)
    assert not world.kernel.connecting


def test_failures_are_bounded(world: World) -> None:
    """A peer can name address after address: the oldest are forgotten."""
    world.connect(ADDRESSES[0])
    world.settle()
    for i in range(1000):
        note_failure(only(world), Pair(ADDRESSES[1], f"10.99.{i >> 8}.{i & 255}", 1), "x", 0.0)
    assert len(only(world).failing) == FAILURES_MAX


def test_a_half_closed_session_is_asked_once(world: World) -> None:
    """ENOTCONN, and the kernel says that one end has closed: no subflow can be opened ever again."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise KernelRefused("open subflow", errno.ENOTCONN)

    infos = world.kernel.session_infos
    world.kernel.session_infos = lambda tokens: [  # type: ignore[method-assign]
        info and info._replace(state=TcpState.CLOSE_WAIT) for info in infos(tokens)
    ]
    world.kernel.create_subflow = refuse  # type: ignore[method-assign]
    world.connect(ADDRESSES[0])
    world.settle()
    for ips in (ADDRESSES[:3], ADDRESSES[:1], ADDRESSES):
        world.addresses(set(ips))
        world.settle()
    assert world.counters["open_refused"] == 1


@pytest.mark.parametrize("armed", [False, True], ids=["planned", "armed"])
@pytest.mark.parametrize(
    "error",
    [
        KernelRefused("open subflow", errno.ENOTCONN),
        KernelRefused("open subflow", errno.EINVAL, "invalid request; userspace PM not selected"),
    ],
    ids=["half-closed", "of the kernel's path manager"],
)
def test_one_refusal_tells_it_for_all_subflows_of_a_plan(
    world: World, error: KernelRefused, armed: bool
) -> None:
    """Where the first says that the session can have none, the others are neither asked for nor recorded."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise error

    world.addresses(set(ADDRESSES))
    if armed:  # for the second session like the first, the commands wait in the kernel's socket
        world.connect(ADDRESSES[0])
        world.settle()
    infos = world.kernel.session_infos
    world.kernel.session_infos = lambda tokens: [  # type: ignore[method-assign]
        info and info._replace(state=TcpState.CLOSE_WAIT) for info in infos(tokens)
    ]
    world.kernel.create_subflow = refuse  # type: ignore[method-assign]
    token = world.connect(ADDRESSES[0])
    world.settle()
    recorded = {HistoryEvent.OPEN_REFUSED, HistoryEvent.UNMANAGED}
    assert sum(entry.event in recorded for entry in world.table.by_token[token].history) == 1
    assert world.counters["open_refused"] == (len(ADDRESSES) - 1 if armed else 1)


def test_backoff_ends_with_a_change_of_routes(world: World) -> None:
    """Long before it is due, but not sooner than some seconds after the failure: routes may flap."""
    world.kernel.broken = {ADDRESSES[1]}
    world.connect(ADDRESSES[0])
    while (
        not (retry := (only(world).retries if len(world.table) else None))
        or next(iter(retry.values())).failures < 7
    ):
        world.sessions.events.read()
        world.kernel.finish_connecting()
        world.sessions.events.read()
        world.loop.run_until(world.clock.now + 0.5)
    world.kernel.broken.clear()
    world.sweeper.routes_changed()
    world.loop.run_until(world.clock.now + EARLY_RETRY_S)
    assert [flow[0] for _, flow in world.kernel.connecting] == [ADDRESSES[1]]


def test_an_address_that_returns_has_no_backoff(world: World) -> None:
    """Its link was the reason."""
    world.kernel.broken = {ADDRESSES[1]}
    world.connect(ADDRESSES[0])
    for _ in range(3):
        world.sessions.events.read()
        world.kernel.finish_connecting()
        world.sessions.events.read()
        world.loop.run_until(world.clock.now + 8)
    world.kernel.broken.clear()
    world.kernel.connecting.clear()
    world.addresses({ADDRESSES[0]})
    world.addresses({ADDRESSES[0], ADDRESSES[1]})
    assert not only(world).failing
