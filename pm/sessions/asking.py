# SPDX-License-Identifier: GPL-2.0-only
"""Asks a path manager what a session should have. What it does wrong costs its own sessions alone.

Where it raises, or answers nonsense, what exists is taken as wanted: the session stays as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from pm.clock import Clock, moment
from pm.log import get_logger
from pm.model import SUBFLOWS_MAX, LocalAddress, Wanted, token_text
from pm.path_managers.answers import as_it_is, problem_of, subflows_in
from pm.path_managers.base import PathManager
from pm.sessions.history import HistoryEvent
from pm.sessions.session import Session

SLOW_S = 0.01  # a path manager runs between "established" and the first subflow: microseconds are usual
QUIET_S = 60.0  # after a line about a path manager there is no other of its kind for so long

log = get_logger()


class GuardedPathManager:
    """One path manager, which may be a third party's. Its ``wanted`` raises nothing."""

    def __init__(
        self,
        name: str,
        path_manager: type[PathManager],
        *,
        counters: Counter[str],
        observe: Callable[[str, float], None],
        clock: Clock,
    ) -> None:
        """``observe`` gets the path manager's name and how many seconds each answer took."""
        self._name = name
        self._path_manager = path_manager
        self._counters = counters
        self._observe = observe
        self._clock = clock
        self._quiet_until: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()

    def wanted(self, session: Session, addresses: Sequence[LocalAddress], parameters: Any) -> Wanted:
        """A checked answer."""
        clock, error = self._clock, None
        start = clock.monotonic()
        try:
            answer = self._path_manager.wanted(session, addresses, parameters)
            problem = problem_of(answer, session, addresses)
        except BaseException as e:  # sys.exit() too: it runs here, and nothing else does meanwhile
            problem, error = _in_words(e), e
        took_s = clock.monotonic() - start
        self._observe(self._name, took_s)
        if took_s > SLOW_S:
            self._report("path_manager_slow", session, seconds=round(took_s, 3))
        if problem:
            self._counters["path_manager_errors"] += 1
            self._note(session, HistoryEvent.PATH_MANAGER_FAILED, problem, error)
            return as_it_is(session)
        if (count := subflows_in(answer)) > SUBFLOWS_MAX:
            limit = f"asks for {count} subflows: a session has at most {SUBFLOWS_MAX}"
            self._note(session, HistoryEvent.PATH_MANAGER_LIMITED, limit)
        elif session.complaint:
            session.complaint = ""
        return answer

    def _note(
        self, session: Session, event: HistoryEvent, what: str, error: BaseException | None = None
    ) -> None:
        """In the session's history and the log, but not for each event anew."""
        if what == session.complaint:
            return
        session.complaint = what
        session.history.add(moment(self._clock), event, f"{self._name}: {what}")
        self._report(event.value, session, error=what, exc_info=error)

    def _report(self, event: str, session: Session, **details: Any) -> None:
        now = self._clock.monotonic()
        if now < self._quiet_until.get(event, 0.0):
            self._left_out[event] += 1
            return
        self._quiet_until[event] = now + QUIET_S
        log.warning(
            event,
            path_manager=self._name,
            token=token_text(session.token),
            left_out=self._left_out.pop(event, 0),
            **details,
        )


def _in_words(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())[:200]
    except Exception:  # its own __str__ raises
        text = ""
    name = type(error).__name__
    return f"raised {name}: {text}" if text.isprintable() and text else f"raised {name}"
