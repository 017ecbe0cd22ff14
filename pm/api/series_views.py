# SPDX-License-Identifier: Apache-2.0
"""Interfaces and figures over time as JSON: pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pm.api.closed_views import rfc3339
from pm.api.series_shapes import InterfaceShape, InterfacesShape, OneSeriesShape, SeriesShape
from pm.interfaces import Interface, Interfaces
from pm.model import LinkState, LocalAddress
from pm.sampling.sampler import INTERVAL_S, RECEIVED, RETRANSMITS, RTT, SENT, SUBFLOWS, Sampler, Window
from pm.sampling.track import UNKNOWN, Track
from pm.sessions.ledger import Ledger
from pm.sessions.session import Session
from pm.sessions.traffic import Traffic

INTERFACES_MAX = 256

Columns = Sequence[tuple[str, int, str]]
"""Name of the series, its column in a track, its unit."""
RATES: Columns = (("sent_per_second", SENT, "B/s"), ("received_per_second", RECEIVED, "B/s"))
OF_ACCOUNTS: Columns = (
    *RATES,
    ("rtt", RTT, "s"),
    ("retransmits_per_second", RETRANSMITS, "1/s"),
    ("subflows", SUBFLOWS, ""),
)
OF_SUBFLOWS: Columns = (*RATES, ("rtt", RTT, "s"))


class Use(NamedTuple):
    """How many sessions and subflows an interface has."""

    sessions: int = 0
    subflows: int = 0

    @classmethod
    def of(cls, uses: Iterable[Use]) -> Use:
        """Of those that share a name."""
        found = list(uses)
        return cls(sum(use.sessions for use in found), sum(use.subflows for use in found))


def interfaces_view(
    sampler: Sampler,
    addresses: Sequence[LocalAddress],
    ledger: Ledger,
    used: Mapping[Interface, Use],
    state_of: Callable[[str], LinkState],
    sessions: int,
) -> InterfacesShape:
    by_name: dict[str, list[LocalAddress]] = {}
    for address in addresses:
        by_name.setdefault(address.ifname, []).append(address)
    carried = ledger.by_interface()
    shown = ledger.interfaces.by_name((*carried, *used))
    for name in shown:
        by_name.setdefault(name, [])
    sums = {name: _sum_of(carried, shown.get(name, ())) for name in by_name}
    names = sorted(by_name, key=lambda name: (not by_name[name], -_bytes(sums[name]), name))
    last = {name: _last(sampler, shown.get(name, ())) for name in names}
    total = sum(found[SENT] + found[RECEIVED] for found in last.values() if not math.isnan(found[SENT]))
    views = [
        _interface_view(
            name,
            by_name[name],
            sums[name],
            Use.of(used[one] for one in shown.get(name, ()) if one in used),
            state_of(name),
            last[name],
            total,
        )
        for name in names[:INTERFACES_MAX]
    ]
    return {
        "interfaces": views,
        "left_out": max(0, len(names) - INTERFACES_MAX),
        "sampled_sessions": sampler.sampled,
        "sessions": sessions,
    }


def _sum_of(carried: Mapping[Interface, Traffic], interfaces: Iterable[Interface]) -> Traffic:
    found = Traffic()
    for interface in interfaces:
        if traffic := carried.get(interface):
            found.add_all(traffic)
    return found


def _bytes(traffic: Traffic) -> int:
    return traffic.bytes_acked + traffic.bytes_received


def _last(sampler: Sampler, interfaces: Collection[Interface]) -> list[float]:
    """The columns of what has one name in the last sample."""
    window = sampler.window()
    if window is None:
        return [UNKNOWN] * 5
    tracks = [track for account, track in sampler.accounts.items() if account.interface in interfaces]
    return [_sum(tracks, column, window.last) for column in range(5)]


def _interface_view(
    name: str,
    addresses: Sequence[LocalAddress],
    carried: Traffic,
    use: Use,
    state: LinkState,
    last: Sequence[float],
    total: float,
) -> InterfaceShape:
    usable = [address for address in addresses if address.usable]
    mine = last[SENT] + last[RECEIVED]
    return {
        "name": name,
        "index": addresses[0].ifindex if addresses else 0,
        "state": state,
        "kind": addresses[0].kind if addresses else "",
        "addresses": [address.ip for address in addresses],
        "used": bool(usable),
        "reason": None if usable else _reason(addresses, state),
        "backup": any(address.backup for address in usable or addresses),
        "sessions": use.sessions,
        "subflows": use.subflows,
        "sent_per_second": _known(last[SENT]),
        "received_per_second": _known(last[RECEIVED]),
        "bytes_sent": carried.bytes_acked,
        "bytes_received": carried.bytes_received,
        "share": round(min(1.0, mine / total), 4) if total and mine >= 0 else None,
        "rtt": _known(last[RTT], 6),
        "retransmits": carried.retransmits,
        "retransmits_per_second": _known(last[RETRANSMITS]),
    }


def _reason(addresses: Sequence[LocalAddress], state: LinkState) -> str:
    """That of its first address: what is said of the others is seldom more."""
    if addresses:
        return addresses[0].why
    return "the interface is gone" if state is LinkState.GONE else "it has no address"


def interface_series_view(
    sampler: Sampler, name: str, interfaces: Collection[Interface], sessions: int
) -> SeriesShape:
    """Of those that ``name`` shows."""
    tracks = [track for account, track in sampler.accounts.items() if account.interface in interfaces]
    return _series_view(sampler, sessions, lambda window: _summed(tracks, window, {"interface": name}))


def policy_series_view(sampler: Sampler, name: str, named: Interfaces, sessions: int) -> SeriesShape:
    def series(window: Window) -> Iterable[OneSeriesShape]:
        by_interface = {a.interface: track for a, track in sampler.accounts.items() if a.policy == name}
        for shown, interfaces in sorted(named.by_name(by_interface).items())[:INTERFACES_MAX]:
            tracks = [by_interface[interface] for interface in interfaces]
            yield from _summed(tracks, window, {"interface": shown})
        if counts := sampler.policies.get(name):
            yield _one("sessions", {}, "", counts.window(0, window.first, window.last))

    return _series_view(sampler, sessions, series)


def session_series_view(sampler: Sampler, session: Session, sessions: int) -> SeriesShape:
    def series(window: Window) -> Iterable[OneSeriesShape]:
        for subflow, followed in sampler.followed.items():
            if followed.session is session and followed.track:
                labels = {"subflow": subflow.id, "interface": followed.account.interface.name}
                for name, column, unit in OF_SUBFLOWS:
                    yield _one(name, labels, unit, followed.track.window(column, window.first, window.last))

    return _series_view(sampler, sessions, series)


def _series_view(
    sampler: Sampler, sessions: int, series: Callable[[Window], Iterable[OneSeriesShape]]
) -> SeriesShape:
    window = sampler.window()
    return {
        "interval": INTERVAL_S,
        "end": rfc3339(window.end) if window else None,
        "times": [round(time, 3) for time in window.times] if window else [],
        "series": list(series(window)) if window else [],
        "sampled_sessions": sampler.sampled,
        "sessions": sessions,
    }


def _summed(tracks: Sequence[Track], window: Window, labels: dict[str, str]) -> Iterable[OneSeriesShape]:
    """Of the policies that share an interface."""
    for name, column, unit in OF_ACCOUNTS:
        values = [_sum(tracks, column, number) for number in range(window.first, window.last + 1)]
        yield _one(name, labels, unit, values)


def _sum(tracks: Sequence[Track], column: int, number: int) -> float:
    """UNKNOWN where none is known. Round-trip times are weighted by the subflows that have them."""
    known = [(value, track) for track in tracks if not math.isnan(value := track.get(column, number))]
    if not known:
        return UNKNOWN
    if column != RTT:
        return sum(value for value, _ in known)
    weights = [track.get(SUBFLOWS, number) for _, track in known]
    return sum(value * weight for (value, _), weight in zip(known, weights, strict=True)) / sum(weights)


def _one(name: str, labels: dict[str, str], unit: str, values: Iterable[float]) -> OneSeriesShape:
    return {"name": name, "labels": labels, "unit": unit, "values": [_known(value, 6) for value in values]}


def _known(value: float, digits: int = 3) -> float | None:
    return None if math.isnan(value) else round(value, digits)
