# SPDX-License-Identifier: Apache-2.0
"""A session as a third party's path manager gets it: a copy that refuses to be changed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from types import MappingProxyType

from pm.model import Origin, Pair, RemoteAddress, Role, SubflowState
from pm.path_managers.base import SessionView


@dataclass(frozen=True, slots=True, eq=False)
class ReadOnlySubflow:
    """``pm.path_managers.base.SubflowView``."""

    pair: Pair
    local: str
    remote: str
    remote_port: int
    state: SubflowState
    working: bool
    origin: Origin
    backup: bool
    peer_backup: bool
    rtt_us: int | None


@dataclass(frozen=True, slots=True, eq=False)
class ReadOnlySession:
    """``pm.path_managers.base.SessionView``."""

    role: Role
    socket_family: int
    local: str
    remote: str
    remote_port: int
    initial_pair: Pair
    remotes: tuple[RemoteAddress, ...]
    subflows: tuple[ReadOnlySubflow, ...]
    deny_join_id0: bool
    initial_removed: bool
    local_ifindex: int
    local_lost: bool
    failing: Collection[Pair]
    unroutable: Collection[Pair]


def read_only(session: SessionView) -> ReadOnlySession:
    """A copy: what is done to it is not done to the session."""
    return ReadOnlySession(
        role=session.role,
        socket_family=session.socket_family,
        local=session.local,
        remote=session.remote,
        remote_port=session.remote_port,
        initial_pair=session.initial_pair,
        remotes=session.remotes,
        subflows=tuple(
            ReadOnlySubflow(
                pair=subflow.pair,
                local=subflow.local,
                remote=subflow.remote,
                remote_port=subflow.remote_port,
                state=subflow.state,
                working=subflow.working,
                origin=subflow.origin,
                backup=subflow.backup,
                peer_backup=subflow.peer_backup,
                rtt_us=subflow.rtt_us,
            )
            for subflow in session.subflows
        ),
        deny_join_id0=session.deny_join_id0,
        initial_removed=session.initial_removed,
        local_ifindex=session.local_ifindex,
        local_lost=session.local_lost,
        failing=MappingProxyType(dict.fromkeys(session.failing)),
        unroutable=MappingProxyType(dict.fromkeys(session.unroutable)),
    )
