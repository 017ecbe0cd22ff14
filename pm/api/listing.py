# SPDX-License-Identifier: Apache-2.0
"""Pages of the session table, cheap with many sessions and many readers.

The cost of a page depends on its own length, not on the table's: sessions are found by number, and
the JSON of each is kept for ``FRESH_S``. Stale sessions are rendered a few at a time with a turn of
the event loop in between, by one reader at a time, so that no reader can hold up the service's work.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from heapq import nlargest, nsmallest
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from pm.api.control import ControlPlane
from pm.api.input_shapes import Order, SessionQuery, SessionSort
from pm.api.problems import BadRequest, Expired
from pm.api.views import encode, session_view
from pm.clock import moment
from pm.interfaces import UNKNOWN, Interface
from pm.model import token_text
from pm.sessions.session import Session

FRESH_S = 1.0
RENDERED_AT_ONCE = 4
LOOKED_AT_AT_ONCE = 500
FAILED = "failed"
CACHE_LENGTH = 1000  # about 2 MiB with four subflows a session

_number = attrgetter("number")
_KEYS: dict[SessionSort, Callable[[Session], float]] = {  # the rate is the sampler's
    SessionSort.AGE: lambda session: -session.number,
    SessionSort.SUBFLOWS: lambda session: len(session.subflows),
    SessionSort.BYTES: lambda session: session.carried.bytes_acked + session.carried.bytes_received,
}


class _Fragment(NamedTuple):
    """A session's JSON, and the session's shape when it was rendered."""

    session: Session
    expires: float
    shape: tuple[object, ...]
    json: bytes


class Census(NamedTuple):
    """What there is: sessions by (policy name, state), subflows by (policy name, interface, state).

    ``interfaces`` counts the sessions that have subflows over each. ``rtts_us`` has the smoothed round-trip
    times of each, as last read; ``stuck`` counts by (policy name, interface). Of ``FAILED`` are pairs that
    failed since they last worked.
    """

    sessions: Counter[tuple[str | None, str]]
    subflows: Counter[tuple[str | None, Interface, str]]
    interfaces: Counter[Interface]
    rtts_us: dict[Interface, list[int]]
    stuck: Counter[tuple[str | None, Interface]]


def _shape(session: Session) -> tuple[object, ...]:
    """The parts of a session that a reader never sees stale, not even for a second."""
    return (session.state, session.policy, len(session.subflows))


class Listing:
    """The session table as JSON. Everything shown is at most ``FRESH_S`` old.

    State, policy and number of subflows are always current.
    """

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._run = secrets.token_hex(4)
        self._fragments: dict[int, _Fragment] = {}
        self._rendering = asyncio.Lock()
        self._census = Census(Counter(), Counter(), Counter(), {}, Counter())
        self._census_expires = 0.0

    def __len__(self) -> int:
        """How many sessions' JSON is kept."""
        return len(self._fragments)

    async def page(self, query: SessionQuery) -> bytes:
        """The ``Sessions`` document of one page, as JSON.

        Raises BadRequest for a bad cursor, Expired for one of a former run.
        """
        page, cursor = await self._select(query)
        known = {session.token: self._fresh(session) for session in page}
        if None in known.values():
            async with self._rendering:
                known = {session.token: self._fresh(session) for session in page}
                known.update(await self._render([s for s in page if known[s.token] is None]))
        body = b",".join([fragment.json for fragment in known.values() if fragment])
        return b'{"sessions":[%b],"next":%b}' % (body, encode(cursor))

    async def census(self) -> Census:
        """At most ``FRESH_S`` old."""
        if time.monotonic() >= self._census_expires:
            found = Census(Counter(), Counter(), Counter(), {}, Counter())
            for some in _chunks(list(self._control.sessions().values()), LOOKED_AT_AT_ONCE):
                for session in some:
                    self._count(session, found)
                await asyncio.sleep(0)
            self._census = found
            self._census_expires = time.monotonic() + FRESH_S
        return self._census

    def _count(self, session: Session, census: Census) -> None:
        policy = session.policy.name if session.policy else None
        census.sessions[policy, session.state.value] += 1
        over = set()
        for subflow in session.subflows:
            interface = self._control.ledger.interface_of(subflow)
            over.add(interface)
            census.subflows[policy, interface, subflow.state] += 1
            census.stuck[policy, interface] += subflow.stuck
            if subflow.figures.rtt_us:
                census.rtts_us.setdefault(interface, []).append(subflow.figures.rtt_us)
        census.interfaces.update(over)
        if session.failing:
            census.subflows[policy, UNKNOWN, FAILED] += len(session.failing)

    async def _select(self, query: SessionQuery) -> tuple[list[Session], str | None]:
        """The sessions of a page, and the cursor of the next page or None.

        The cursor is ``RUN-NUMBER``: a text of this run of the service, and the number of the page's last
        session. Younger sessions have higher numbers, and no number is used twice. Thus sessions that come
        or go between two pages neither repeat nor hide others.
        """
        if query.sort is not None:
            return await self._greatest(query), None
        table = self._control.sessions()
        rest: Iterable[Session]
        if query.cursor is None:
            rest = islice(table.values(), query.limit + 1) if not _filters(query) else list(table.values())
        else:
            everything = list(table.values())
            rest = everything[bisect_right(everything, self._number_of(query.cursor), key=_number) :]
        found: list[Session] = []
        if _filters(query):
            for some in _chunks(rest, LOOKED_AT_AT_ONCE):  # type: ignore[arg-type]
                found += [session for session in some if self._matches(session, query)]
                if len(found) > query.limit:
                    break
                await asyncio.sleep(0)
        else:
            found = list(islice(rest, query.limit + 1))
        if len(found) <= query.limit:
            return found, None
        page = found[: query.limit]
        return page, f"{self._run}-{page[-1].number}"

    def _number_of(self, cursor: str) -> int:
        found = re.fullmatch(r"([0-9a-f]{8})-([0-9]{1,18})", cursor, re.ASCII)
        if found is None:
            raise BadRequest([{"name": "cursor", "message": "must be the `next` of another page"}])
        if found[1] != self._run:
            raise Expired("the service was started again since: begin with the first page")
        return int(found[2])

    async def _greatest(self, query: SessionQuery) -> list[Session]:
        """The sessions that come first in the order of the query; of equals the oldest."""
        if query.cursor is not None:
            raise BadRequest([{"name": "cursor", "message": "has no meaning with `sort`"}])
        assert query.sort is not None
        key = self._rate() if query.sort is SessionSort.RATE else _KEYS[query.sort]
        first = nlargest if query.order is Order.DESCENDING else nsmallest
        found: list[Session] = []
        for some in _chunks(list(self._control.sessions().values()), LOOKED_AT_AT_ONCE):
            matching = [session for session in some if self._matches(session, query)]
            found = first(query.limit, [*found, *matching], key)
            await asyncio.sleep(0)
        return found

    def _rate(self) -> Callable[[Session], float]:
        sampler = self._control.sampler
        sampler.look()
        rates = sampler.rates()
        return lambda session: rates.get(session, 0.0)

    def _matches(self, session: Session, query: SessionQuery) -> bool:
        if query.state is not None and session.state != query.state:
            return False
        if query.policy is not None and (session.policy is None or session.policy.name != query.policy):
            return False
        if query.cgroup is query.search is None:
            return True
        path = self._control.cgroup_path(session)
        if query.cgroup is not None:
            below = query.cgroup.rstrip("/")
            if path is None or not (path == query.cgroup or path.startswith(below + "/")):
                return False
        return query.search is None or _has(session, path, query.search.lower())

    def _fresh(self, session: Session) -> _Fragment | None:
        fragment = self._fragments.get(session.token)
        if (
            fragment is None
            or fragment.session is not session  # the kernel may reuse a token
            or fragment.expires <= time.monotonic()
            or fragment.shape != _shape(session)
        ):
            return None
        return fragment

    async def _render(self, stale: Sequence[Session]) -> dict[int, _Fragment]:
        """Render sessions: fragments by token. They are also kept for the next reader."""
        rendered: dict[int, _Fragment] = {}
        for some in _chunks(stale, RENDERED_AT_ONCE):
            figures = self._control.stats(some)
            now = moment(time)
            expires = now.monotonic + FRESH_S
            for session, of_session in zip(some, figures, strict=True):
                cgroup, program = self._control.cgroup_path(session), self._control.program_of(session)
                view = session_view(session, cgroup, program, of_session, now)
                rendered[session.token] = _Fragment(session, expires, _shape(session), encode(view))
            await asyncio.sleep(0)
        for token, fragment in rendered.items():
            # Newest last: the fragments dropped below are the oldest.
            self._fragments.pop(token, None)
            self._fragments[token] = fragment
        while len(self._fragments) > CACHE_LENGTH:
            del self._fragments[next(iter(self._fragments))]
        return rendered


def _filters(query: SessionQuery) -> bool:
    return not (query.policy is query.cgroup is query.state is query.search is None)


def _has(session: Session, cgroup: str | None, text: str) -> bool:
    """Whether any of the words that name a session has ``text`` (lower case)."""
    words = [token_text(session.token), cgroup or "", session.policy.name if session.policy else ""]
    for subflow in session.subflows:
        words += (f"{subflow.local}:{subflow.local_port}", f"{subflow.remote}:{subflow.remote_port}")
    return any(text in word.lower() for word in words)


def _chunks(items: Sequence[Session], length: int) -> Iterable[Sequence[Session]]:
    return (items[i : i + length] for i in range(0, len(items), length))
