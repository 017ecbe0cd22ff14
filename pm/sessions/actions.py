# SPDX-License-Identifier: Apache-2.0
"""What a plan consists of: one action is one command to the kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from pm.model import Pair, Subflow
from pm.sessions.history import HistoryEvent


class ActionKind(StrEnum):
    """Every kind of action. The words are public: counters, metric labels and docs/api.md show them."""

    OPEN = "open"
    CLOSE = "close"
    SET_BACKUP = "set_backup"
    ANNOUNCE = "announce"
    WITHDRAW = "withdraw"

    @property
    def refused(self) -> HistoryEvent:
        """The word for an action of this kind that the kernel refused."""
        return _REFUSED[self]


class Open(NamedTuple):
    """MPTCP_PM_CMD_SUBFLOW_CREATE."""

    pair: Pair
    local_id: int
    backup: bool
    reason: str
    ifindex: int = 0  # bind to this interface: what a link-local address needs


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
    port: int = 0
    backup: bool = False


class Withdraw(NamedTuple):
    """MPTCP_PM_CMD_REMOVE: RM_ADDR to the peer.

    ``announce_first``: no subflow uses the address and it is not announced. The kernel sends nothing
    then, unless the address is announced directly before.
    """

    ip: str
    local_id: int
    reason: str
    announce_first: bool = False


Action = Open | Close | SetBackup | Announce | Withdraw


@dataclass(slots=True)
class Plan:
    """The actions due now, in order, and when (monotonic clock) the session is looked at again, if at all.

    For a session that is not established yet: those due once it is.
    """

    actions: list[Action] = field(default_factory=list)
    look_at: float | None = None

    def look_again(self, when: float) -> None:
        self.look_at = when if self.look_at is None else min(self.look_at, when)


KINDS: dict[type[Action], ActionKind] = {
    Open: ActionKind.OPEN,
    Close: ActionKind.CLOSE,
    SetBackup: ActionKind.SET_BACKUP,
    Announce: ActionKind.ANNOUNCE,
    Withdraw: ActionKind.WITHDRAW,
}
_REFUSED = {
    ActionKind.OPEN: HistoryEvent.OPEN_REFUSED,
    ActionKind.CLOSE: HistoryEvent.CLOSE_REFUSED,
    ActionKind.SET_BACKUP: HistoryEvent.SET_BACKUP_REFUSED,
    ActionKind.ANNOUNCE: HistoryEvent.ANNOUNCE_REFUSED,
    ActionKind.WITHDRAW: HistoryEvent.WITHDRAW_REFUSED,
}
