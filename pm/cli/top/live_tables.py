# SPDX-License-Identifier: Apache-2.0
"""The tables of ``top``: interfaces, policies, sessions. Pure: rows of a snapshot to lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.text import Text

from pm.cli.tables import bytes_text, duration_text, endpoint
from pm.cli.top.collector import InterfaceRow, PolicyRow, SessionRow, Snapshot, rate_of
from pm.cli.top.columns import Cell, Column, Look, table
from pm.cli.top.glyphs import Glyphs
from pm.cli.top.session_rates import Rate
from pm.cli.top.views_of_top import View

STATE_STYLES = {"up": "green", "down": "red", "no carrier": "yellow", "gone": "red"}
SESSION_STYLES = {"established": "green"}
RATE = len("12.3 MiB/s")  # no column gets wider and narrower again and again
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
RTT = len("0.999 ms")


def rate_text(rate: float | None) -> str:
    """Three digits, at most ``RATE`` characters."""
    if rate is None:
        return "–"
    unit = 0
    while rate >= 999.5 and unit + 1 < len(UNITS):
        rate /= 1024
        unit += 1
    digits = 0 if unit == 0 or rate >= 99.95 else 1 if rate >= 9.995 else 2
    return f"{rate:.{digits}f} {UNITS[unit]}/s"


def rtt_text(rtt: float | None) -> str:
    """Three digits, as `duration_text`; 0 is what nobody has measured."""
    return duration_text(rtt or None)


def interface_columns(glyphs: Glyphs) -> list[Column[InterfaceRow]]:
    def text(of: Callable[[InterfaceRow], str]) -> Callable[[InterfaceRow, int], Cell]:
        return lambda row, width: Cell(of(row), _dim(row))

    def state(row: InterfaceRow, width: int) -> Cell:
        word = row.interface["state"]
        mark = " backup" if row.interface["backup"] else ""
        return Cell(word + mark, STATE_STYLES.get(word, ""))

    def rtt(row: InterfaceRow) -> str:
        return rtt_text(row.interface["rtt"])

    def retransmits(row: InterfaceRow) -> str:
        rate = row.interface["retransmits_per_second"]
        return "–" if rate is None else f"{rate:.3g}/s" if rate < 999.5 else f"{rate:.0f}/s"

    def share(row: InterfaceRow, width: int) -> Cell:
        part = row.interface["share"]
        text = "–" if part is None else f"{part:.0%}"
        return Cell(f"{text:>4} {glyphs.bar(part, width - 5)}".rstrip() if width else text, _dim(row))

    def history(row: InterfaceRow, width: int) -> Cell:
        return Cell(glyphs.sparkline(row.history, width), "cyan")

    return [
        Column("INTERFACE", text(lambda r: r.interface["name"]), 0, most=15, lead=True, sort="name"),
        Column("STATE", state, 5, least=10, most=17, lead=True),
        Column("SENT", text(lambda r: rate_text(r.interface["sent_per_second"])), 1, least=RATE, right=True),
        Column(
            "RECEIVED",
            text(lambda r: rate_text(r.interface["received_per_second"])),
            2,
            least=RATE,
            right=True,
        ),
        Column("SHARE", share, 3, most=15, steady=True, sort="rate"),
        Column("RTT", text(rtt), 4, least=RTT, right=True, sort="rtt"),
        Column("HISTORY", history, 6, least=8, most=60, drawn=True),
        Column("SUBFLOWS", text(lambda r: str(r.interface["subflows"])), 7, right=True, sort="subflows"),
        Column("RETRANS", text(retransmits), 8, least=8, right=True, sort="retransmits"),
        Column("SESSIONS", text(lambda r: str(r.interface["sessions"])), 9, right=True),
        Column("ALL SENT", text(lambda r: bytes_text(r.interface["bytes_sent"])), 11, least=10, right=True),
        Column("ALL RECEIVED", text(lambda r: bytes_text(r.interface["bytes_received"])), 12, right=True),
        Column("WHY NOT USED", text(_why_not), 13, in_pipe=True),
        Column("ADDRESSES", text(lambda r: ", ".join(r.interface["addresses"])), 14, least=15, most=60),
    ]


def _dim(row: InterfaceRow) -> str:
    return "" if row.interface["used"] else "dim"


def _why_not(row: InterfaceRow) -> str:
    return "" if row.interface["used"] else row.interface["reason"] or ""


def _note(row: InterfaceRow) -> str:
    """Of an interface without figures."""
    return "" if row.interface["subflows"] else _why_not(row)


def policy_columns(glyphs: Glyphs) -> list[Column[PolicyRow]]:
    def of_policy(name: str) -> Callable[[PolicyRow, int], Cell]:
        return lambda row, width: Cell(str(row.policy[name]))

    def manager(row: PolicyRow, width: int) -> Cell:
        return Cell(row.policy["path_manager"]["name"])

    def rate(which: Callable[[Rate], float]) -> Callable[[PolicyRow, int], Cell]:
        return lambda row, width: Cell(rate_text(which(row.rate)) if row.rates else "–")

    def history(row: PolicyRow, width: int) -> Cell:
        return Cell(glyphs.sparkline(row.history, width), "cyan")

    return [
        Column("POLICY", of_policy("name"), 0, least=8, most=24, sort="name"),
        Column("SESSIONS", of_policy("sessions"), 1, right=True, sort="sessions"),
        Column("SENT", rate(lambda r: r.sent), 2, least=RATE, right=True, sort="rate"),
        Column("RECEIVED", rate(lambda r: r.received), 3, least=RATE, right=True, sort="rate"),
        Column(
            "BY INTERFACE", lambda row, width: Cell(_by_interface(row)), 4, least=16, most=40, steady=True
        ),
        Column("HISTORY", history, 5, least=8, most=60, drawn=True),
        Column("PATH MANAGER", manager, 6, most=20),
        Column("CGROUP", of_policy("cgroup"), 7, most=80, cut_left=True),
    ]


def _by_interface(row: PolicyRow) -> str:
    """``eth0 70%, eth1 30%``: shares of the bytes per second, the greatest first."""
    whole = row.rate.both
    if not whole:
        return "–"
    ordered = sorted(row.rates.items(), key=lambda item: (-item[1].both, item[0]))
    return ", ".join(f"{name} {rate.both / whole:.0%}" for name, rate in ordered if rate.both)


def session_columns(glyphs: Glyphs) -> list[Column[SessionRow]]:
    def text(of: Callable[[SessionRow], str]) -> Callable[[SessionRow, int], Cell]:
        return lambda row, width: Cell(of(row))

    def state(row: SessionRow, width: int) -> Cell:
        word = row.session["state"]
        return Cell(word, SESSION_STYLES.get(word, "yellow"))

    def rate(which: Callable[[Rate], float]) -> Callable[[SessionRow, int], Cell]:
        return lambda row, width: Cell(rate_text(row.rate and which(row.rate)))

    def history(row: SessionRow, width: int) -> Cell:
        return Cell(glyphs.sparkline(row.history, width), "cyan")

    return [
        Column("SESSION", text(lambda r: r.session["token"]), 0, least=10),
        Column("POLICY", text(lambda r: r.session["policy"] or "–"), 3, least=8, most=24),
        Column("STATE", state, 9, least=11),
        Column("AGE", text(lambda r: duration_text(r.session["age_s"])), 8, least=11, right=True, sort="age"),
        Column("PATHS", text(_paths), 4, right=True, sort="subflows"),
        Column("SENT", rate(lambda r: r.sent), 1, least=RATE, right=True, sort="rate"),
        Column("RECEIVED", rate(lambda r: r.received), 2, least=RATE, right=True, sort="rate"),
        Column("TOTAL", text(_total), 7, least=10, right=True, sort="bytes"),
        Column("HISTORY", history, 6, least=8, most=40, drawn=True),
        Column("REMOTE", text(lambda r: endpoint(r.session["remote_addresses"][0])), 5, least=21, most=47),
        Column("CGROUP", text(lambda r: r.session["cgroup"] or "–"), 10, least=16, most=100, cut_left=True),
    ]


def _paths(row: SessionRow) -> str:
    """Subflows that are established, of those there are."""
    subflows = row.session["subflows"]
    established = sum(subflow["state"] == "established" for subflow in subflows)
    return str(established) if established == len(subflows) else f"{established}/{len(subflows)}"


def _total(row: SessionRow) -> str:
    """Of the subflows that it has now."""
    subflows = row.session["subflows"]
    return bytes_text(sum((s["bytes_sent"] or 0) + (s["bytes_received"] or 0) for s in subflows))


def view_rows(snapshot: Snapshot, view: View, sort: str, reverse: bool, text: str) -> list[tuple[str, Any]]:
    """Keys and rows in order; of sessions the service has filtered and sorted them."""
    words = text.lower()
    match view:
        case View.INTERFACES:
            interfaces = sorted(snapshot.interfaces, key=_interface_order(sort), reverse=reverse)
            return [(r.interface["name"], r) for r in interfaces if _has(words, _words_of_interface(r))]
        case View.POLICIES:
            policies = sorted(snapshot.policies, key=_policy_order(sort), reverse=reverse)
            return [(r.policy["name"], r) for r in policies if _has(words, _words_of_policy(r))]
    return [(r.session["token"], r) for r in snapshot.sessions]


def view_lines(view: View, rows: Sequence[Any], look: Look) -> list[Text]:
    """The table of this view; ``rows`` are those of ``view_rows``."""
    match view:
        case View.INTERFACES:
            return table(interface_columns(look.glyphs), rows, look, _note)
        case View.POLICIES:
            return table(policy_columns(look.glyphs), rows, look)
    return table(session_columns(look.glyphs), rows, look)


def _has(words: str, texts: Sequence[str]) -> bool:
    return not words or any(words in text.lower() for text in texts)


def _words_of_interface(row: InterfaceRow) -> list[str]:
    interface = row.interface
    return [interface["name"], interface["state"], interface["kind"], *interface["addresses"]]


def _words_of_policy(row: PolicyRow) -> list[str]:
    policy = row.policy
    return [policy["name"], policy["cgroup"], policy["path_manager"]["name"], *policy["cgroups"]]


def _interface_order(sort: str) -> Callable[[InterfaceRow], tuple[bool, float, str]]:
    """By name, or those first that have figures."""
    figures: dict[str, Callable[[InterfaceRow], float]] = {
        "rate": lambda row: rate_of(row.interface).both,
        "rtt": lambda row: row.interface["rtt"] or 0.0,
        "retransmits": lambda row: row.interface["retransmits_per_second"] or 0.0,
        "subflows": lambda row: row.interface["subflows"],
        "name": lambda row: 0.0,
    }
    return lambda row: (sort != "name" and bool(_note(row)), -figures[sort](row), row.interface["name"])


def _policy_order(sort: str) -> Callable[[PolicyRow], tuple[float, str]]:
    figures: dict[str, Callable[[PolicyRow], float]] = {
        "rate": lambda row: row.rate.both,
        "sessions": lambda row: row.policy["sessions"],
        "name": lambda row: 0.0,
    }
    return lambda row: (-figures[sort](row), row.policy["name"])
