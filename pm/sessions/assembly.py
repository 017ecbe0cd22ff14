# SPDX-License-Identifier: GPL-2.0-only
"""Builds the parts of this folder and connects them, for the service and for tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pm.clock import Clock, Scheduler
from pm.kernel import Commands, Diagnosis
from pm.path_managers.base import PathManager
from pm.sessions.address_ids import AddressIds
from pm.sessions.behind_programs import BehindPrograms, NoPrograms, Programs
from pm.sessions.executor import Executor, Publish
from pm.sessions.local_addresses import AddressBook
from pm.sessions.operator_commands import OperatorCommands
from pm.sessions.policy_assignment import PolicyAssignment, Selector
from pm.sessions.preopened import FirstSubflows
from pm.sessions.reconciler import Reconciler
from pm.sessions.resync import Resync
from pm.sessions.session_table import SessionTable
from pm.sessions.timers import TimerQueue


@dataclass(frozen=True, slots=True)
class Sessions:
    """What others use of this folder."""

    table: SessionTable
    addresses: AddressBook
    reconciler: Reconciler
    resync: Resync
    first_subflows: FirstSubflows
    operator_commands: OperatorCommands


def assemble(
    *,
    commands: Commands,
    diagnosis: Diagnosis,
    selector: Selector,
    path_managers: Mapping[str, type[PathManager]],
    publish: Publish,
    counters: Counter[str],
    observe_join: Callable[[float], None],
    clock: Clock,
    scheduler: Scheduler,
    programs: Programs | None = None,
    address_ids: Mapping[str, int] | None = None,
) -> Sessions:
    """``programs`` are those of the bpf datapath, ``address_ids`` those given before, by address.

    The functions below are called back later: what they name is built by then.
    """

    def due(token: int) -> None:
        reconciler.reconcile_token(token)

    table = SessionTable()
    addresses = AddressBook(AddressIds(address_ids or {}))
    timers = TimerQueue(due, clock=clock, scheduler=scheduler)
    executor = Executor(table=table, commands=commands, publish=publish, counters=counters, clock=clock)
    assignment = PolicyAssignment(
        table=table,
        selector=selector,
        diagnosis=diagnosis,
        reconcile=lambda session: reconciler.reconcile(session),
        clock=clock,
        scheduler=scheduler,
    )
    first_subflows = FirstSubflows(
        commands=commands,
        executor=executor,
        selector=selector,
        admit=lambda pending: reconciler.admit(pending),
        scheduler=scheduler,
    )
    behind: BehindPrograms | NoPrograms = NoPrograms()
    if programs:
        behind = BehindPrograms(
            programs=programs,
            timers=timers,
            merge_dump=lambda: resync.merge_dump(),
            reconcile=due,
            counters=counters,
            clock=clock,
            scheduler=scheduler,
        )
    resync = Resync(
        table=table,
        diagnosis=diagnosis,
        first_subflows=first_subflows,
        assignment=assignment,
        behind=behind,
        publish=publish,
        counters=counters,
        clock=clock,
    )
    reconciler = Reconciler(
        table=table,
        commands=commands,
        diagnosis=diagnosis,
        executor=executor,
        first_subflows=first_subflows,
        assignment=assignment,
        behind=behind,
        resync=resync,
        timers=timers,
        addresses=addresses,
        path_managers=path_managers,
        publish=publish,
        counters=counters,
        observe_join=observe_join,
        clock=clock,
    )
    return Sessions(
        table=table,
        addresses=addresses,
        reconciler=reconciler,
        resync=resync,
        first_subflows=first_subflows,
        operator_commands=OperatorCommands(table=table, executor=executor, local_id=addresses.local_id),
    )
