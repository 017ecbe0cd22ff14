# SPDX-License-Identifier: GPL-2.0-only
"""One MPTCP connection as the session table keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from pm.model import Pair, RemoteAddress, Role, Subflow

if TYPE_CHECKING:
    from pm.policies.model import Policy
    from pm.sessions.history import History


class SessionState(StrEnum):
    """Life of a session as the kernel reports it (MPTCP_EVENT_CREATED, _ESTABLISHED, _CLOSED)."""

    CREATED = "created"
    ESTABLISHED = "established"
    CLOSED = "closed"


@dataclass(slots=True)
class Retry:
    """A pair whose opening failed: when to try again and why it failed."""

    failures: int
    not_before: float
    reason: str


@dataclass(slots=True, eq=False)
class Session:
    """One MPTCP connection, named by its local token (RFC 8684, section 3.2).

    ``number`` ascends in the order the sessions became known. ``created`` and ``established`` are
    seconds since the epoch; ``socket_family`` is 4 or 6 and limits the subflows (a v4 socket has v4
    subflows only, a v6 socket both). ``managed`` is false where the kernel's
    own path manager has the session. ``closed_by_operator`` counts, per pair, the subflows that the
    operator closed: they are not opened again. Times of ``retries`` are on the monotonic clock.
    """

    token: int
    number: int
    role: Role
    socket_family: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    created: float
    history: History
    state: SessionState = SessionState.CREATED
    established: float = 0.0
    policy: Policy | None = None
    cgroup_id: int = 0
    managed: bool = True
    started: bool = False
    deny_join_id0: bool = False
    subflows: list[Subflow] = field(default_factory=list)
    remotes: tuple[RemoteAddress, ...] = ()
    announced: dict[str, int] | None = None
    local_ids: dict[str, int] | None = None
    retries: dict[Pair, Retry] | None = None
    closed_by_operator: dict[Pair, int] | None = None

    @property
    def initial_pair(self) -> Pair:
        return Pair(self.local, self.remote, self.remote_port)
