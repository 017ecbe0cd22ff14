# SPDX-License-Identifier: Apache-2.0
"""Asks a path manager what a session should have. What it does wrong costs its own sessions alone.

Where it raises, or answers nonsense, what exists is taken as wanted: the session stays as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from pm.clock import Clock, moment
from pm.log_budget import get_limited_logger
from pm.model import SUBFLOWS_MAX, LocalAddress, Wanted, token_text
from pm.path_managers.answers import as_it_is, in_words, problem_of, subflows_in
from pm.path_managers.base import PathManager, SessionView
from pm.sessions.history import HistoryEvent
from pm.sessions.read_only import read_only
from pm.sessions.session import Session
from pm.sessions.time_limit import TookTooLong

SLOW_S = 0.01  # a path manager runs between "established" and the first subflow: microseconds are usual
REST_S = 60.0  # one that took too long is not asked for so long

log = get_limited_logger()


class GuardedPathManager:
    """One path manager, which may be a third party's. Its ``wanted`` raises nothing."""

    def __init__(
        self,
        name: str,
        path_manager: type[PathManager],
        *,
        limit: AbstractContextManager[None],
        counters: Counter[str],
        observe: Callable[[str, float], None],
        clock: Clock,
    ) -> None:
        """``limit`` raises TookTooLong in its block.

        ``observe`` gets the name and how many seconds each answer took.
        """
        self._name = name
        self._path_manager = path_manager
        self._limit = limit
        self._counters = counters
        self._observe = observe
        self._clock = clock
        self._rest_until = 0.0
        self._rest_reason = ""
        self._ours = path_manager.__module__.startswith("pm.path_managers.")

    def wanted(self, session: Session, addresses: Sequence[LocalAddress], parameters: Any) -> Wanted:
        """A checked answer."""
        clock = self._clock
        error: BaseException | None = None
        start = clock.monotonic()
        if start < self._rest_until:
            self._note(session, HistoryEvent.PATH_MANAGER_FAILED, self._rest_reason)
            return as_it_is(session)
        try:
            with self._limit:
                answer = self._ask(session, addresses, parameters)
            problem = problem_of(answer, session, addresses)
        except TookTooLong as e:
            problem, error = f"{e}: it is not asked for {REST_S:g} s", e
            self._rest_until, self._rest_reason = clock.monotonic() + REST_S, problem
        except BaseException as e:  # sys.exit() too: it runs here, and nothing else does meanwhile
            problem, error = in_words(e), e
        took_s = clock.monotonic() - start
        self._observe(self._name, took_s)
        if took_s > SLOW_S:
            self._report("path_manager_slow", session, self._name, seconds=round(took_s, 3))
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

    def _ask(self, session: SessionView, addresses: Sequence[LocalAddress], parameters: Any) -> Wanted:
        if not self._ours:
            session, addresses = read_only(session), tuple(addresses)
        return self._path_manager.wanted(session, addresses, parameters)

    def _note(
        self, session: Session, event: HistoryEvent, what: str, error: BaseException | None = None
    ) -> None:
        """In the session's history and the log, but not for each event anew."""
        if what == session.complaint:
            return
        session.complaint = what
        session.history.add(moment(self._clock), event, f"{self._name}: {what}")
        self._report(event.value, session, (self._name, what), error=what, exc_info=error)

    def _report(self, event: str, session: Session, about: Hashable, **details: Any) -> None:
        token = token_text(session.token)
        log.warning(event, about=about, path_manager=self._name, token=token, **details)
