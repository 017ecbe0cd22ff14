# SPDX-License-Identifier: GPL-2.0-only
"""What the service knows at run time: addresses, subflows, sessions, and the actions on them.

Data only, no I/O and no clock. Terms are those of RFC 8684; IP addresses are canonical text
(``inet_ntop``), IPv4 also where the kernel reports it v4-mapped, and shared (one string object
per address), since a busy host holds thousands of references to the same few.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pm.config.model import Policy
    from pm.history import History


class Role(StrEnum):
    """Which end of the initial subflow this host is."""

    CLIENT = "client"
    SERVER = "server"


class SessionState(StrEnum):
    """Life of a session as the kernel reports it (MPTCP_EVENT_CREATED, _ESTABLISHED, _CLOSED)."""

    CREATED = "created"
    ESTABLISHED = "established"
    CLOSED = "closed"


class SubflowState(StrEnum):
    OPENING = "opening"
    ESTABLISHED = "established"


class Origin(IntEnum):
    """Who wanted a subflow."""

    INITIAL = 0  # the application's own connect() or accept()
    POLICY = 1  # the path manager of the session's policy
    PEER = 2  # the other end joined
    OPERATOR = 3  # by hand, over REST or the CLI
    UNKNOWN = 4  # opened before the service watched


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """A local address as rtnetlink reports it and what path managers may do with it.

    ``why`` says in words why it is (not) usable; ``usable`` already takes link state, address
    flags and the configured include/exclude rules into account. ``up`` ignores the rules: the
    address can carry packets (its link is up with carrier, it is not tentative or failed).
    """

    ip: str
    prefix_len: int
    ifindex: int
    ifname: str
    usable: bool
    backup: bool
    why: str
    up: bool = True

    @property
    def family(self) -> int:
        """4 or 6."""
        return family_of(self.ip)


class RemoteAddress(NamedTuple):
    """An address the peer announced with ADD_ADDR. ``port`` is 0 where it named none."""

    ip: str
    port: int
    address_id: int


class Pair(NamedTuple):
    """What a subflow connects: local address to remote address and port."""

    local: str
    remote: str
    remote_port: int

    def __str__(self) -> str:
        return f"{self.local} × {self.remote}"


class Want(NamedTuple):
    """How many subflows on a pair, and whether they carry the backup flag."""

    subflows: int = 1
    backup: bool = False


Wanted = dict[Pair, Want]


@dataclass(slots=True, eq=False)
class Subflow:
    """One TCP subflow of a session. ``local_port`` is 0 while the kernel has not told it.

    ``backup`` is the flag as this end set it, ``peer_backup`` as the peer did; ``socket_family`` is
    6 for a v4-mapped subflow.
    """

    local: str
    local_port: int
    remote: str
    remote_port: int
    origin: Origin
    state: SubflowState
    local_id: int = 0
    remote_id: int = 0
    backup: bool = False
    peer_backup: bool = False
    backup_by_hand: bool = False
    socket_family: int = 4

    @property
    def pair(self) -> Pair:
        return Pair(self.local, self.remote, self.remote_port)

    @property
    def id(self) -> str:
        """Name of the subflow within its session: ``LOCAL:PORT-REMOTE:PORT``."""
        return f"{self.local}:{self.local_port}-{self.remote}:{self.remote_port}"


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
    own path manager has the session. ``held`` counts, per pair, the subflows the operator closed:
    they are not opened again. Times of ``retries`` are on the monotonic clock.
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
    held: dict[Pair, int] | None = None

    @property
    def initial_pair(self) -> Pair:
        return Pair(self.local, self.remote, self.remote_port)


# Actions: what plan.py decides and the reconciler's executor performs.


class Open(NamedTuple):
    """MPTCP_PM_CMD_SUBFLOW_CREATE."""

    pair: Pair
    local_id: int
    backup: bool
    reason: str


class Close(NamedTuple):
    """MPTCP_PM_CMD_SUBFLOW_DESTROY."""

    subflow: Subflow
    reason: str


class SetBackup(NamedTuple):
    """MPTCP_PM_CMD_SET_FLAGS: sends MP_PRIO on the subflow."""

    subflow: Subflow
    backup: bool
    reason: str


class Announce(NamedTuple):
    """MPTCP_PM_CMD_ANNOUNCE: ADD_ADDR to the peer."""

    ip: str
    local_id: int
    reason: str


class Withdraw(NamedTuple):
    """MPTCP_PM_CMD_REMOVE: RM_ADDR to the peer."""

    ip: str
    local_id: int
    reason: str


Action = Open | Close | SetBackup | Announce | Withdraw


def family_of(ip: str) -> int:
    """4 or 6, of canonical address text."""
    return 6 if ":" in ip else 4
