# SPDX-License-Identifier: Apache-2.0
"""Builds the parts of this folder and connects them, for the service and for tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from pm.clock import Clock, EventLoop
from pm.interfaces import Interfaces
from pm.kernel_protocols import Commands, Diagnosis, FinalFigureSource
from pm.model import RemoteAddress, Subflow
from pm.path_managers.base import PathManager, follows_rtt
from pm.path_managers.endpoints import Endpoints
from pm.policies.model import Limits
from pm.policies.remote_addresses import RemoteAddresses, RemoteRules
from pm.sessions.address_ids import AddressIds
from pm.sessions.asking import GuardedPathManager
from pm.sessions.behind_programs import BehindPrograms, NoPrograms, Programs
from pm.sessions.endings import Endings
from pm.sessions.endpoint_book import EndpointBook, EndpointSource
from pm.sessions.event_handler import EventHandler
from pm.sessions.event_reader import EventReader
from pm.sessions.executor import Executor, Publish
from pm.sessions.known_ways import Judge, Routes, Watcher, anywhere, unwatched
from pm.sessions.ledger import Ledger
from pm.sessions.local_addresses import AddressBook
from pm.sessions.open_limits import OpenLimits
from pm.sessions.operator_commands import OperatorCommands
from pm.sessions.policy_assignment import PolicyAssignment, Selector
from pm.sessions.preopened import FirstSubflows
from pm.sessions.preview import Preview
from pm.sessions.reconciler import Reconciler
from pm.sessions.resync import Resync
from pm.sessions.session import Session
from pm.sessions.session_notes import SessionName
from pm.sessions.session_table import SessionTable
from pm.sessions.sweeper import Sweeper
from pm.sessions.timers import TimerQueue
from pm.sessions.watch import Watch


@dataclass(frozen=True, slots=True)
class Sessions:
    """What others use of this folder."""

    table: SessionTable
    ledger: Ledger
    endings: Endings
    addresses: AddressBook
    endpoints: EndpointBook
    events: EventReader
    reconciler: Reconciler
    sweeper: Sweeper
    resync: Resync
    first_subflows: FirstSubflows
    open_limits: OpenLimits
    remote_rules: RemoteRules
    operator_commands: OperatorCommands
    preview: Preview


def assemble(
    *,
    commands: Commands,
    diagnosis: Diagnosis,
    selector: Selector,
    path_managers: Mapping[str, type[PathManager]],
    limit: AbstractContextManager[None],
    publish: Publish,
    counters: Counter[str],
    observe_join: Callable[[float], None],
    observe_answer: Callable[[str, float], None],
    clock: Clock,
    scheduler: EventLoop,
    programs: Programs | None = None,
    in_no_hurry: Callable[[], bool] = lambda: False,
    address_ids: Mapping[str, int] | None = None,
    seen_up: Sequence[str] = (),
    denied: Collection[SessionName] = (),
    note: Callable[[], None] = lambda: None,
    is_local: Callable[[str], bool] = lambda ip: True,
    limits: Limits | None = None,
    remote_addresses: RemoteAddresses | None = None,
    endpoints: EndpointSource | None = None,
    judge_way: Judge = anywhere,
    on_ways: Watcher = unwatched,
    finals: FinalFigureSource | None = None,
    interfaces: Interfaces | None = None,
) -> Sessions:
    """``programs`` are those of the bpf datapath, ``in_no_hurry`` tells whether they open all subflows, and
    ``address_ids`` are those given before, by address.

    ``observe_answer`` gets a path manager's name and the seconds that its answer took, ``limit``
    bounds it. ``seen_up``
    are local addresses that an earlier run saw up, ``denied`` sessions whose peer refuses joins to its
    initial address; ``note`` is called when what is to be noted of these has changed. ``is_local`` asks
    the kernel whether it routes an address as local, ``judge_way`` by which way packets leave; ``on_ways``
    hears of its answers. ``endpoints`` are the namespace's, None where the kernel's own path manager has
    the sessions that no policy owns. ``finals`` is as in ``Endings``,
    ``interfaces`` as in ``Ledger``.

    The functions below are called back later: what they name is built by then.
    """

    def due(token: int) -> None:
        reconciler.reconcile_token(token)

    def reconcile(session: Session) -> None:
        reconciler.reconcile(session)

    def compared(number: int) -> None:
        behind.compared(number)
        sweeper.compared(number)

    def joined(session: Session, joins: Sequence[Subflow]) -> None:
        event_handler.joined(session, joins)

    def judge(session: Session, remote: RemoteAddress) -> str:
        if remote.ip in addresses.current.interfaces:
            return "an address of this host"
        return remote_rules.refusal(remote.ip, session.remote)

    def on_denied(session: Session) -> None:
        if session.deny_join_id0:
            note()

    ids = AddressIds(address_ids or {})
    remote_rules = RemoteRules(remote_addresses or RemoteAddresses())
    ledger = Ledger(interfaces)
    endings = Endings(
        ledger=ledger,
        diagnosis=diagnosis,
        finals=finals,
        cgroup_path=selector.cgroup_path,
        clock=clock,
        scheduler=scheduler,
    )
    table = SessionTable(ids.by_ip, judge, endings.subflow_closed)
    routes = Routes(judge_way, on_ways)
    addresses = AddressBook(ids, is_local=is_local, seen_up=seen_up, on_change=note, routes=routes)
    book = EndpointBook(
        endpoints,
        addresses=addresses,
        on_change=lambda gone, flags: sweeper.endpoints_changed(gone, flags),
        scheduler=scheduler,
    )
    timers = TimerQueue(due, clock=clock, scheduler=scheduler)
    executor = Executor(
        table=table,
        commands=commands,
        diagnosis=diagnosis,
        publish=publish,
        counters=counters,
        clock=clock,
    )
    assignment = PolicyAssignment(
        table=table,
        selector=selector,
        diagnosis=diagnosis,
        reconcile=reconcile,
        serves_unowned=lambda: book.serving,
        clock=clock,
        scheduler=scheduler,
    )
    open_limits = OpenLimits(limits or Limits(), counters)
    first_subflows = FirstSubflows(
        commands=commands,
        executor=executor,
        selector=selector,
        admit=lambda pending: event_handler.admit(pending),
        reserve=open_limits.reserve,
        scheduler=scheduler,
    )
    behind: BehindPrograms | NoPrograms = NoPrograms()
    if programs:
        behind = BehindPrograms(
            programs=programs,
            timers=timers,
            compare=lambda: resync.request(),
            reconcile=due,
            counters=counters,
            clock=clock,
            scheduler=scheduler,
        )
    watch = Watch(
        table=table,
        ledger=ledger,
        diagnosis=diagnosis,
        reconcile=reconcile,
        follow_rtt={n for n, path_manager in path_managers.items() if follows_rtt(path_manager)},
        counters=counters,
        clock=clock,
        scheduler=scheduler,
    )
    resync = Resync(
        table=table,
        ledger=ledger,
        endings=endings,
        diagnosis=diagnosis,
        first_subflows=first_subflows,
        assignment=assignment,
        behind=behind,
        watch=watch,
        denied=denied,
        on_denied=on_denied,
        reconcile=reconcile,
        on_joins=joined,
        on_compared=compared,
        publish=publish,
        counters=counters,
        clock=clock,
        scheduler=scheduler,
    )
    choosers, tried = (
        {
            name: GuardedPathManager(
                name, path_manager, limit=limit, counters=counters, observe=observe_answer, clock=clock
            )
            for name, path_manager in {**path_managers, Endpoints.name: Endpoints}.items()
        }
        for _ in range(2)
    )
    reconciler = Reconciler(
        table=table,
        diagnosis=diagnosis,
        executor=executor,
        behind=behind,
        open_limits=open_limits,
        timers=timers,
        watch=watch,
        addresses=addresses,
        endpoints=book,
        path_managers=choosers,
        counters=counters,
        clock=clock,
    )
    event_handler = EventHandler(
        table=table,
        diagnosis=diagnosis,
        executor=executor,
        first_subflows=first_subflows,
        assignment=assignment,
        behind=behind,
        open_limits=open_limits,
        resync=resync,
        timers=timers,
        watch=watch,
        endpoints=book,
        endings=endings,
        reconciler=reconciler,
        on_denied=on_denied,
        publish=publish,
        counters=counters,
        observe_join=observe_join,
        clock=clock,
    )
    sweeper = Sweeper(
        table=table,
        ledger=ledger,
        executor=executor,
        first_subflows=first_subflows,
        assignment=assignment,
        resync=resync,
        timers=timers,
        watch=watch,
        addresses=addresses,
        endpoints=book,
        reconciler=reconciler,
        clock=clock,
    )
    events = EventReader(
        commands=commands,
        apply=event_handler.apply,
        on_lost=sweeper.resync,
        in_no_hurry=in_no_hurry,
        counters=counters,
        scheduler=scheduler,
        clock=clock,
    )
    return Sessions(
        table=table,
        ledger=ledger,
        endings=endings,
        addresses=addresses,
        endpoints=book,
        events=events,
        reconciler=reconciler,
        sweeper=sweeper,
        resync=resync,
        first_subflows=first_subflows,
        open_limits=open_limits,
        remote_rules=remote_rules,
        operator_commands=OperatorCommands(table=table, executor=executor, addresses=addresses),
        preview=Preview(
            table=table,
            addresses=addresses,
            endpoints=book,
            path_managers=choosers,
            tried=tried,
            clock=clock,
        ),
    )
