# SPDX-License-Identifier: Apache-2.0
"""What happened to a session, newest last, bounded also against a peer that makes things happen."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import NamedTuple

from pm.clock import Moment

LENGTH = 32


class HistoryEvent(StrEnum):
    """Every word that a history uses. They are public: REST, the CLI and docs/api.md show them."""

    CREATED = "created"
    ESTABLISHED = "established"
    FOUND = "found"
    POLICY = "policy"
    START_REACHED = "start_reached"
    UNMANAGED = "unmanaged"
    SUBFLOW_OPENING = "subflow_opening"
    SUBFLOW_ESTABLISHED = "subflow_established"
    SUBFLOW_CLOSED = "subflow_closed"
    SUBFLOW_FOUND = "subflow_found"
    SUBFLOW_GONE = "subflow_gone"
    SUBFLOW_STUCK = "subflow_stuck"
    SUBFLOW_RECOVERED = "subflow_recovered"
    BACKUP_SET = "backup_set"
    BACKUP_CLEARED = "backup_cleared"
    PEER_SET_BACKUP = "peer_set_backup"
    PEER_CLEARED_BACKUP = "peer_cleared_backup"
    ADDRESS_ANNOUNCED = "address_announced"
    ADDRESS_WITHDRAWN = "address_withdrawn"
    REMOTE_ADDRESS_ANNOUNCED = "remote_address_announced"
    REMOTE_ADDRESS_REFUSED = "remote_address_refused"
    REMOTE_ADDRESS_REMOVED = "remote_address_removed"
    PATH_MANAGER_FAILED = "path_manager_failed"
    PATH_MANAGER_LIMITED = "path_manager_limited"
    OPEN_REFUSED = "open_refused"
    CLOSE_REFUSED = "close_refused"
    SET_BACKUP_REFUSED = "set_backup_refused"
    ANNOUNCE_REFUSED = "announce_refused"
    WITHDRAW_REFUSED = "withdraw_refused"


class Entry(NamedTuple):
    """``time`` is seconds since the epoch; ``detail`` is shown with str()."""

    time: float
    event: HistoryEvent
    detail: object


class History(list[Entry]):
    """At most ``LENGTH`` entries. A list without slack: a busy host keeps one per session.

    Where there is no room, the oldest entry of the commonest event goes: what happens again and again, such
    as a peer's MP_PRIO, displaces itself, and not how the session began.
    """

    __slots__ = ()

    def add(self, now: Moment, event: HistoryEvent, detail: object = "") -> None:
        if len(self) >= LENGTH:
            counts = Counter(entry.event for entry in self)
            counts[event] += 1
            most = max(counts[entry.event] for entry in self)
            del self[next(i for i, entry in enumerate(self) if counts[entry.event] == most)]
        self.append(Entry(now.time, event, detail))
