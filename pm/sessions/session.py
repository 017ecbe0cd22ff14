# SPDX-License-Identifier: Apache-2.0
"""One MPTCP connection as the session table keeps it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from pm.clock import Moment
from pm.model import Pair, RemoteAddress, Role
from pm.sessions.closed_subflows import ClosedSubflows
from pm.sessions.subflows import Subflows
from pm.sessions.traffic import Traffic

if TYPE_CHECKING:
    from pm.policies.model import Policy
    from pm.sessions.history import History


class SessionState(StrEnum):
    """Life of a session as the kernel reports it (MPTCP_EVENT_CREATED, _ESTABLISHED); then it is gone."""

    CREATED = "created"
    ESTABLISHED = "established"


class FailureKind(StrEnum):
    """How a subflow failed, as far as the kernel tells."""

    COMMAND = "command"  # the kernel did not open it
    UNANSWERED = "unanswered"  # its SYN
    UNREACHABLE = "unreachable"  # somebody on the way said so (ICMP)
    RESET = "reset"  # in answer to its SYN
    NO_MPTCP = "no_mptcp"  # a SYN/ACK without MP_JOIN
    REFUSED = "refused"  # by the peer, after its SYN/ACK
    ENDED = "ended"  # it was established, and was lost


JOIN_RESULTS = (
    "established", "accepted", "unanswered", "unreachable", "reset", "no_mptcp", "refused", "dropped",
)  # fmt: skip
"""What became of joins; those that the peer opens are ``accepted``.

``dropped``: by the kernel, without an event, as where the peer withdraws the address.
"""


def join_counter(result: str) -> str:
    """The name of the counter of one of ``JOIN_RESULTS``."""
    return f"join_{result}"


@dataclass(slots=True)
class Retry:
    """What failed: how often in a row, when last, why, and when it is tried again (monotonic clock).

    ``left_half``: a subflow of the pair died in silence here, so that the peer may still have its half, and
    count it.
    """

    failures: int
    failed_at: float
    not_before: float
    reason: str
    kind: FailureKind = FailureKind.ENDED
    left_half: bool = False

    @property
    def refused(self) -> bool:
        """The peer answered, and then refused."""
        return self.kind is FailureKind.REFUSED


@dataclass(slots=True, eq=False)
class Session:
    """One MPTCP connection, named by its local token (RFC 8684, section 3.2).

    ``number`` ascends in the order the sessions became known. ``socket_family`` is 4 or 6 and limits
    the subflows (a v4 socket has v4 subflows only, a v6 socket both). ``managed`` is false where the
    kernel's own path manager has the session. ``half_closed``: one end has closed; no subflow can be
    opened any more. ``initial_removed``: the peer withdrew its initial address.

    ``unowned``: no policy owns it, and the path manager ``endpoints`` serves it.
    ``device`` is the interface that the application bound its socket to, 0 for none, None for not known
    yet; ``mark`` is the socket's SO_MARK. ``unroutable`` has the pairs over which no packet leaves as it
    should, and why, as of the last plan.

    ``remotes`` are the addresses that the peer announced and to which subflows may go, ``refused_remotes``
    the others. ``local_ifindex`` is the interface of the initial local address as last known, 0 for unknown;
    ``local_lost`` that this address is lost. ``local_ids`` has address ids that differ from those of
    other sessions. ``retries`` has the pairs that failed since they last worked, ``address_retries``
    the announcements and withdrawals. ``closed_by_operator`` counts, per pair, the subflows that the
    operator closed: they are not opened again. ``opens_full_at`` and ``plans_full_at`` are token buckets
    (``pm.policies.rates``); ``opens_wait_until`` is when one that found its bucket empty asks again.
    ``complaint`` is what is wrong with the last answer of the path manager. ``carried`` is the sum of the
    figures of all its subflows, ``closed`` has those that ended; the ledger and ``endings`` keep them.
    """

    token: int
    number: int
    role: Role
    socket_family: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    created: Moment
    history: History
    state: SessionState = SessionState.CREATED
    established: Moment | None = None
    policy: Policy | None = None
    unowned: bool = False
    cgroup_id: int = 0
    managed: bool = True
    started: bool = False
    half_closed: bool = False
    deny_join_id0: bool = False
    initial_removed: bool = False
    local_ifindex: int = 0
    local_lost: bool = False
    device: int | None = None
    mark: int = 0
    unroutable: Mapping[Pair, str] = field(default_factory=dict)
    subflows: Subflows = field(default_factory=Subflows)
    remotes: tuple[RemoteAddress, ...] = ()
    refused_remotes: tuple[RemoteAddress, ...] = ()
    announced: dict[str, int] | None = None
    local_ids: dict[str, int] | None = None
    retries: dict[Pair, Retry] | None = None
    address_retries: dict[str, Retry] | None = None
    closed_by_operator: dict[Pair, int] | None = None
    complaint: str = ""
    opens_full_at: float = 0.0
    opens_wait_until: float = 0.0
    plans_full_at: float = 0.0
    carried: Traffic = field(default_factory=Traffic)
    closed: ClosedSubflows | None = None

    @property
    def initial_pair(self) -> Pair:
        return Pair(self.local, self.remote, self.remote_port)

    def take_policy(self, policy: Policy | None) -> bool:
        """Whether it is another one: what failed or was closed under the former is forgotten then."""
        changed = policy != self.policy
        self.policy = policy  # also where it is equal: a reload lets the old object go
        if changed:
            self.retries = self.address_retries = self.closed_by_operator = None
            self.started = self.started or (policy is not None and not policy.start.waits)
        return changed

    @property
    def failing(self) -> Collection[Pair]:
        """Pairs that failed since they last worked."""
        return self.retries or ()
