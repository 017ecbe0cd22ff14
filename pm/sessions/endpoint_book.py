# SPDX-License-Identifier: Apache-2.0
"""The namespace's endpoints, for sessions that no policy owns and for policies that name ``endpoints``.

On a stock kernel the service takes all sessions of the namespace from the kernel's path manager: here it
gives back what ``ip mptcp endpoint`` and ``ip mptcp limits`` did for them. The kernel has no event for
its table: it is read every few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from pm.clock import Scheduler, Timer
from pm.errors import KernelRefused
from pm.log import get_logger
from pm.model import Endpoint, EndpointTable, LocalAddress, SubflowState
from pm.path_managers.choice import PathManagerChoice
from pm.path_managers.endpoints import Endpoints, NamespaceEndpoints
from pm.policies.model import Accept, Policy
from pm.sessions.actions import Action, Close, SetBackup, Withdraw
from pm.sessions.address_ids import MAX_ID
from pm.sessions.local_addresses import AddressBook, LocalAddresses
from pm.sessions.session import Session

INTERVAL_S = 5.0
SOURCES_MAX = 4096  # destinations whose source address is remembered

log = get_logger()


class EndpointSource(Protocol):
    def read(self) -> EndpointTable:
        """The table of the namespace. Raises KernelRefused."""

    def source_of(self, destination: str) -> str:
        """The source address that the routes give for a destination, "" for none."""


class EndpointBook:
    """Serves nothing until ``serve``, and nothing ever without a ``source`` (the bpf datapath)."""

    def __init__(
        self,
        source: EndpointSource | None,
        *,
        addresses: AddressBook,
        on_change: Callable[[Sequence[Endpoint], Mapping[str, bool]], None],
        scheduler: Scheduler,
    ) -> None:
        """``on_change`` hears of each change: the endpoints that are gone, and backup flags by address."""
        self._source = source
        self._book = addresses
        self._on_change = on_change
        self._scheduler = scheduler
        self._table = EndpointTable()
        self._serving = False
        self._timer: Timer | None = None
        self._failed = False
        self._sources: dict[str, str] = {}
        self._policies: dict[str, tuple[Policy | None, Policy]] = {}
        self._addresses: tuple[LocalAddresses, LocalAddresses] | None = None

    # Running

    def serve(self, *, serving: bool) -> None:
        """Whether the service has the namespace's sessions: not without any policy. Reads the table."""
        first = not self._serving
        self.cancel()
        self._serving = serving and self._source is not None
        if self._serving:
            self._look(first=first)

    def cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def forget_sources(self) -> None:
        """Routes or addresses have changed."""
        self._sources.clear()

    def _look(self, *, first: bool = False) -> None:
        assert self._source is not None
        self._timer = self._scheduler.call_later(INTERVAL_S, self._look)
        try:
            table = self._source.read()
        except KernelRefused as e:
            if not self._failed:
                log.warning(
                    "endpoints_not_read", error=str(e), remedy="none needed: they are read again soon"
                )
            self._failed = True
            return
        self._failed = False
        before, self._table = self._table, table
        if table != before:
            self._policies.clear()
            self._addresses = None
            log.info("endpoints", endpoints=len(table.endpoints), subflows=table.subflows)
            if not first:
                self._on_change(*differences(before, table))

    # Queries

    @property
    def serving(self) -> bool:
        """Whether sessions that no policy owns are served."""
        return self._serving

    @property
    def in_use(self) -> bool:
        """Whether there is anything to open or to announce for them."""
        return self._serving and bool(self._table.endpoints or self._table.add_addr_accepted)

    def in_force(self, session: Session) -> Policy | None:
        """The policy by which a session is planned; None where it is left alone."""
        policy = session.policy
        if policy is None:
            return self._with_table(None) if session.unowned and self._serving else None
        if policy.path_manager.name != Endpoints.name:
            return policy
        return self._with_table(policy) if self._serving else None

    def addresses(self, policy: Policy) -> LocalAddresses:
        """The local addresses and their ids as sessions of a policy (``in_force``) see them."""
        if not isinstance(policy.path_manager.parameters, NamespaceEndpoints):
            return self._book.current
        current = self._book.current
        if self._addresses is None or self._addresses[0] is not current:
            self._addresses = current, endpoint_addresses(current, self._table.endpoints)
            self._sources.clear()
        return self._addresses[1]

    def _with_table(self, policy: Policy | None) -> Policy:
        """A policy whose path manager has the table; the joins that it accepts are limited as well."""
        name = policy.name if policy else ""
        known = self._policies.get(name)
        if known and known[0] is policy:
            return known[1]
        choice = PathManagerChoice(Endpoints.name, NamespaceEndpoints(self._table, self._source_of))
        limit = min(self._table.subflows + 1, 255)
        if policy:
            most = policy.accept.max_subflows or limit
            made = replace(policy, path_manager=choice, accept=replace(policy.accept, max_subflows=most))
        else:
            made = Policy(name="", cgroup="/", path_manager=choice, accept=Accept(max_subflows=limit))
        self._policies[name] = policy, made
        return made

    def _source_of(self, destination: str) -> str:
        assert self._source is not None
        if destination not in self._sources:
            if len(self._sources) >= SOURCES_MAX:
                self._sources.clear()
            self._sources[destination] = self._source.source_of(destination)
        return self._sources[destination]


def differences(before: EndpointTable, after: EndpointTable) -> tuple[list[Endpoint], dict[str, bool]]:
    """The endpoints whose address is gone, and the backup flag of each address where it is another."""
    there = {e.ip: e.backup for e in after.endpoints}
    gone = [e for e in before.endpoints if e.ip not in there]
    flags = {e.ip: there[e.ip] for e in before.endpoints if there.get(e.ip, e.backup) != e.backup}
    return gone, flags


def endpoint_addresses(current: LocalAddresses, endpoints: Sequence[Endpoint]) -> LocalAddresses:
    """Every address that can carry subflows, with the ids and flags of the endpoints. Pure.

    The configured rules say nothing here. An endpoint on no interface may be routed as local (AnyIP). An
    address without an endpoint, which a route may choose, gets an id that no endpoint has.
    """
    usable: list[LocalAddress] = []
    bound: dict[str, int] = {}
    by_ip = {e.ip: e for e in reversed(endpoints) if not e.port}
    for e in by_ip.values():
        there = [a for a in current.there if a.ip == e.ip and e.ifindex in (0, a.ifindex)]
        up = [a for a in there if a.up]
        if up:
            usable.append(replace(up[0], usable=True, backup=e.backup))
        elif e.ip not in current.interfaces and e.ip not in current.lost:
            usable.append(LocalAddress(e.ip, 0, e.ifindex, "", usable=True, backup=e.backup, why=""))
        if e.ifindex:
            bound[e.ip] = e.ifindex
    others = {a.ip: a for a in current.there if a.up and a.ip not in by_ip}
    usable += (replace(a, usable=True, backup=False) for a in others.values())
    return replace(current, usable=tuple(usable), ids=_ids(current, endpoints, others), bound=bound)


def _ids(
    current: LocalAddresses, endpoints: Sequence[Endpoint], others: Mapping[str, LocalAddress]
) -> dict[str, int]:
    ids = {e.ip: e.address_id for e in reversed(endpoints)}
    taken = {e.address_id for e in endpoints}
    for ip in others:
        if (known := current.ids.get(ip)) and known not in taken:
            ids[ip] = known
            taken.add(known)
    free = (i for i in range(1, MAX_ID + 1) if i not in taken)
    for ip in others:
        if ip not in ids and (given := next(free, None)):
            ids[ip] = given
    return ids


def after_change(
    session: Session, gone: Sequence[Endpoint], flags: Mapping[str, bool], announced_ids: Mapping[str, int]
) -> list[Action]:
    """What the kernel does to a living session when its table changes, beyond the plan. Pure.

    It closes every subflow from an address whose endpoint is gone, whoever opened it, and sets flags on
    those of the peer as well. The last working subflow stays, which the kernel would close too.
    """
    actions: list[Action] = [
        SetBackup(s, flags[s.local], "endpoint")
        for s in session.subflows
        if s.state is SubflowState.ESTABLISHED and flags.get(s.local, s.backup) != s.backup
    ]
    lost = {e.ip for e in gone}
    losing = [s for s in session.subflows if s.local in lost and s.local_port]
    staying = [s for s in session.subflows if s.state is SubflowState.ESTABLISHED and s not in losing]
    if not losing:
        return actions
    if not staying:
        established = [s for s in losing if s.state is SubflowState.ESTABLISHED]
        losing = [s for s in losing if s not in established[-1:]]
        staying = established[-1:]
    kept = {s.local for s in staying}
    for ip, address_id in {s.local: s.local_id for s in losing}.items():
        if ip not in kept and ip not in announced_ids:
            actions.append(Withdraw(ip, address_id, "endpoint deleted"))
    actions += (Close(s, "endpoint deleted") for s in losing)
    return actions
