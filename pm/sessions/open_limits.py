# SPDX-License-Identifier: Apache-2.0
"""How fast subflows are opened: a peer names addresses, and the SYNs go to them from here.

What an operator opens by hand is not limited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pm.policies.model import Limits, Policy, session_rate
from pm.policies.rates import Rate
from pm.sessions.actions import Action, Open
from pm.sessions.session import Session


class OpenLimits:
    """The bucket of the network namespace; each session has its own in ``opens_full_at``.

    A session that must wait gets a time of its own and asks again at that time only, whatever happens to
    it meanwhile: many that wait do not look again all at once.
    """

    def __init__(self, limits: Limits, counters: Counter[str]) -> None:
        self._counters = counters
        self._full_at = 0.0
        self._last_place = 0.0
        self.update(limits)

    def update(self, limits: Limits) -> None:
        """After a reload."""
        self._limits = limits
        self._rate = Rate(limits.opens_per_second, limits.opens_per_second)

    def admit(
        self, session: Session, policy: Policy, actions: Sequence[Action], now: float
    ) -> tuple[Sequence[Action], float | None]:
        """The actions to perform now, and when the others come up again."""
        opens = sum(isinstance(action, Open) for action in actions)
        if not opens:
            return actions, None
        if now < session.opens_wait_until:
            return [action for action in actions if not isinstance(action, Open)], session.opens_wait_until
        rate = session_rate(self._limits, policy)
        of_session = rate.room(session.opens_full_at, now)
        admitted = min(opens, of_session, self._rate.room(self._full_at, now))
        session.opens_full_at = rate.take(session.opens_full_at, now, admitted)
        self._full_at = self._rate.take(self._full_at, now, admitted)
        if admitted == opens:
            return actions, None
        self._counters["opens_delayed"] += opens - admitted
        if admitted == of_session:
            session.opens_wait_until = rate.next_at(session.opens_full_at)
        else:
            place = max(self._last_place, self._rate.next_at(self._full_at))
            session.opens_wait_until = self._last_place = place + 1 / self._rate.per_second
        return _first_opens(actions, admitted), session.opens_wait_until

    def reserve(self, opens: int, now: float) -> bool:
        """Take room for the first subflows of a new session; False where there is too little."""
        if self._rate.room(self._full_at, now) < opens:
            return False
        self._full_at = self._rate.take(self._full_at, now, opens)
        return True

    def opened(self, session: Session, policy: Policy, opens: int, now: float) -> None:
        """Reserved subflows were opened."""
        rate = session_rate(self._limits, policy)
        session.opens_full_at = rate.take(session.opens_full_at, now, opens)


def _first_opens(actions: Sequence[Action], count: int) -> list[Action]:
    """All actions but the opens after the first ``count``."""
    kept: list[Action] = []
    for action in actions:
        if isinstance(action, Open):
            count -= 1
        if count >= 0 or not isinstance(action, Open):
            kept.append(action)
    return kept
