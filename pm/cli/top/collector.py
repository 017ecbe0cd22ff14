# SPDX-License-Identifier: Apache-2.0
"""What ``top`` asks the service for, once for each frame: what is on the screen, and no more."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pm.cli.client import Client, segment
from pm.cli.top.session_rates import Rate, SessionRates
from pm.cli.top.state import ROWS_MAX
from pm.cli.top.views_of_top import View
from pm.errors import PmError

Json = Mapping[str, Any]
RATES = ("sent_per_second", "received_per_second")
HISTORY = 300  # values of a sparkline
SERIES_MAX = 60  # series fetched for one frame; of policies those that have the most sessions


class Request(NamedTuple):
    """What a frame needs."""

    view: View = View.INTERFACES
    sort: str = "rate"
    reverse: bool = False
    text: str = ""
    policy: str | None = None
    opened: str | None = None
    limit: int = 100

    @property
    def shows(self) -> tuple[View, str | None, str | None]:
        return self.view, self.policy, self.opened


class PolicyRow(NamedTuple):
    policy: Json
    rates: Mapping[str, Rate]  # by interface
    history: Sequence[float | None]

    @property
    def rate(self) -> Rate:
        return Rate(sum(r.sent for r in self.rates.values()), sum(r.received for r in self.rates.values()))


class InterfaceRow(NamedTuple):
    interface: Json
    history: Sequence[float | None]


class SessionRow(NamedTuple):
    session: Json
    rate: Rate | None
    history: Sequence[float | None]


class Snapshot(NamedTuple):
    """Rows of the view that ``request`` names, or the session that it opens."""

    request: Request
    time: float
    status: Json
    rate: Rate
    sampled: int
    interfaces: Sequence[InterfaceRow]
    left_out: int = 0  # interfaces of which the service says no more
    policies: Sequence[PolicyRow] = ()
    sessions: Sequence[SessionRow] = ()
    session: Json | None = None  # with its history
    series: Json | None = None
    message: str = ""  # why there is no session


class Collector:
    """Fetches snapshots, and remembers what sparklines need."""

    def __init__(self, client: Client, now: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._now = now
        self._seen_at = 0.0
        self._interfaces: dict[str, deque[float | None]] = {}
        self._rates = SessionRates()
        self._service: tuple[int, str] | None = None

    def collect(self, request: Request) -> Snapshot:
        """Raises PmError if the service cannot be reached."""
        status = self._client.status()
        service = (status["pid"], status["started_at"])
        if service != self._service:  # another one counts from the start
            self._service, self._interfaces, self._rates = service, {}, SessionRates()
        document = self._client.get("/v1/interfaces")
        interfaces = self._interface_rows(document["interfaces"])
        rates = [rate_of(row.interface) for row in interfaces]
        snapshot = Snapshot(
            request,
            time.time(),
            status,
            Rate(sum(r.sent for r in rates), sum(r.received for r in rates)),
            document["sampled_sessions"],
            interfaces,
            document["left_out"],
        )
        if request.opened:
            return self._with_session(snapshot, request.opened)
        match request.view:
            case View.POLICIES:
                return snapshot._replace(policies=self._policy_rows())
            case View.SESSIONS:
                return snapshot._replace(sessions=self._session_rows(request))
        return snapshot

    def _interface_rows(self, interfaces: Sequence[Json]) -> list[InterfaceRow]:
        now = self._now()
        # A key asks at once: that is no new second. What was missed in a longer time stays unknown.
        seconds = round(now - self._seen_at)
        if seconds:
            self._seen_at = now
        kept, self._interfaces = self._interfaces, {}
        for number, interface in enumerate(interfaces):
            name = interface["name"]
            history = kept.get(name)
            if history is None:
                past = self._past(f"/v1/interfaces/{segment(name)}/series") if number < SERIES_MAX else []
                history = deque(past, HISTORY)
            elif seconds and interface["sent_per_second"] is not None:
                history.extend([None] * min(seconds - 1, HISTORY))
                history.append(rate_of(interface).both)
            self._interfaces[name] = history
        return [InterfaceRow(i, list(self._interfaces[i["name"]])) for i in interfaces]

    def _past(self, path: str) -> list[float | None]:
        """Bytes per second, both ways together; empty where the service has none."""
        try:
            return totals(self._client.get(path))
        except PmError:  # the interface has gone in the meantime
            return []

    def _policy_rows(self) -> list[PolicyRow]:
        rows = []
        policies = self._client.get("/v1/policies")["policies"]
        asked = {p["name"] for p in sorted(policies, key=lambda p: -p["sessions"])[:SERIES_MAX]}
        for policy in policies:
            series: Json = {"series": [], "times": []}
            if policy["name"] in asked:
                series = self._client.get(f"/v1/policies/{segment(policy['name'])}/series")
            rows.append(PolicyRow(policy, last_rates(series), totals(series)))
        return rows

    def _session_rows(self, request: Request) -> list[SessionRow]:
        page = self._client.get(
            "/v1/sessions",
            sort=request.sort,
            order="ascending" if request.reverse else None,
            policy=request.policy,
            search=request.text or None,
            limit=min(request.limit, ROWS_MAX),
        )
        self._rates.update(page["sessions"])
        return [
            SessionRow(session, self._rates.rate(session["token"]), self._rates.history(session["token"]))
            for session in page["sessions"]
        ]

    def _with_session(self, snapshot: Snapshot, token: str) -> Snapshot:
        path = f"/v1/sessions/{segment(token)}"
        try:
            session = self._client.get(path)
            return snapshot._replace(session=session, series=self._client.get(f"{path}/series"))
        except PmError as e:
            return snapshot._replace(message=f"{token}: {e}")


def rate_of(interface: Json) -> Rate:
    return Rate(interface["sent_per_second"] or 0.0, interface["received_per_second"] or 0.0)


def totals(series: Json) -> list[float | None]:
    """Bytes sent and received per second at each time, of all that the document has."""
    return sums([one["values"] for one in series["series"] if one["name"] in RATES])


def sums(series: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Of all series at each time, of the values that are known; None where none is."""
    columns = ([value for value in values if value is not None] for values in zip(*series, strict=False))
    return [sum(known) if known else None for known in columns]


def last_rates(series: Json) -> dict[str, Rate]:
    """The last values by interface."""
    found: dict[str, dict[str, float]] = {}
    for one in series["series"]:
        if one["name"] in RATES and one["values"]:
            by_name = found.setdefault(one["labels"].get("interface", ""), {})
            by_name[one["name"]] = one["values"][-1] or 0.0
    return {name: Rate(*(rates.get(key, 0.0) for key in RATES)) for name, rates in found.items()}
