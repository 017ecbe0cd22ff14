# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from pm.sessions.history import LENGTH, History, HistoryEvent
from tests.unit.builders import at

BEGINNING = [HistoryEvent.CREATED, HistoryEvent.POLICY, HistoryEvent.ESTABLISHED]


@pytest.mark.parametrize(
    "flood",
    [
        [HistoryEvent.PEER_SET_BACKUP],
        [HistoryEvent.PEER_SET_BACKUP, HistoryEvent.PEER_CLEARED_BACKUP],
        [
            HistoryEvent.REMOTE_ADDRESS_ANNOUNCED,
            HistoryEvent.SUBFLOW_OPENING,
            HistoryEvent.SUBFLOW_CLOSED,
            HistoryEvent.REMOTE_ADDRESS_REMOVED,
        ],
    ],
)
def test_peer_cannot_roll_the_history_away(flood: list[HistoryEvent]) -> None:
    """Whatever it repeats, the rare events stay, and the newest entries are there in their order."""
    history = History()
    for second, event in enumerate(BEGINNING):
        history.add(at(second), event)
    for second in range(1000):
        history.add(at(10 + second), flood[second % len(flood)])
    assert len(history) == LENGTH
    assert [entry.event for entry in history[: len(BEGINNING)]] == BEGINNING
    assert history[-1].time == 1009
    assert [entry.time for entry in history] == sorted(entry.time for entry in history)
