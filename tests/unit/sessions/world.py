# SPDX-License-Identifier: Apache-2.0
"""A reconciler on a model of the kernel, with a clock and an event loop that only tests move.

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
from contextlib import nullcontext
from functools import partial
from typing import Any

from pm.errors import KernelRefused
from pm.kernel import (
    CreateCommand,
    EventType,
    MptcpEvent,
    RawEvent,
    SessionInfo,
    SubflowRecord,
)
from pm.model import Subflow
from pm.path_managers.registry import registry
from pm.policies.model import Policy
from pm.sessions.assembly import assemble
from pm.sessions.policy_assignment import Classified
from tests.unit.builders import REMOTE, REMOTE_PORT, address, event, record

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
        self.no_memory = 0  # so many questions are not answered
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
    def announce(self, *args: Any, **kwargs: Any) -> None: ...
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

    # pm.kernel_protocols.Diagnosis

    def question(self) -> None:
        if self.no_memory:
            self.no_memory -= 1
            raise KernelRefused("looking up sockets", errno.ENOBUFS)

    def session_infos(self, tokens: Sequence[int]) -> list[SessionInfo | None]:
        self.question()
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
        self.question()
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
        self.question()
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

    def classify(self, local: str, local_port: int, remote: str, remote_port: int) -> Classified | None:
        return Classified(self.policy) if self.policy else None

    def policy_of_cgroup(self, cgroup_id: int) -> Policy | None:
        return self.policy

    def cgroup_path(self, cgroup_id: int) -> str | None:
        return None


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
            limit=nullcontext(),
            publish=lambda *args: None,
            counters=self.counters,
            observe_join=lambda seconds: None,
            observe_answer=lambda name, seconds: None,
            clock=self.clock,
            scheduler=self.loop,
            programs=self.kernel.program,
        )
        self.reconciler = self.sessions.reconciler
        self.sweeper = self.sessions.sweeper
        self.table = self.sessions.table
        self.tokens = itertools.count(1)

    def addresses(self, ips: set[str]) -> None:
        self.sweeper.addresses_changed([address(ip, int(ip.split(".")[2])) for ip in sorted(ips)])
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
