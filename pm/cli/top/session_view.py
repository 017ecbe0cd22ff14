# SPDX-License-Identifier: Apache-2.0
"""One session in ``top``: its subflows, what it has not, its history. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from rich.text import Text

from pm.cli.session_report import pair_state_text
from pm.cli.tables import bytes_text, duration_text, number_text, pair_text
from pm.cli.top.collector import RATES, Snapshot, sums
from pm.cli.top.columns import Cell, Column, Look, table
from pm.cli.top.glyphs import Glyphs
from pm.cli.top.live_tables import RATE, RTT, rate_text, rtt_text

Json = Mapping[str, Any]
Values = Sequence[float | None]
INDENT = "  "
HANGING = " " * 10


class SubflowRow(NamedTuple):
    subflow: Json
    interface: str
    sent: Values  # bytes per second, newest last
    received: Values
    rtt: Values
    share: float | None  # of the session's bytes per second


def session_lines(snapshot: Snapshot, look: Look) -> list[Text]:
    """All that is known, in as many lines as it takes."""
    session, clean = snapshot.session, look.glyphs.clean
    if session is None:
        return wrapped(clean(snapshot.message), look.width, HANGING)

    def say(text: str) -> list[Text]:
        return wrapped(clean(text), look.width, HANGING)

    lines = [line for text in _facts(session) for line in say(text)]
    lines[0].stylize("bold", 0, len(session["token"]))
    lines.append(Text())
    lines += _subflow_lines(subflow_rows(session, snapshot.series or {"series": []}), look)
    if session["missing"]:
        lines += [Text(), Text("MISSING", "dim")]
        lines += [
            Text(clean(f"{pair_text(p)}: {pair_state_text(p)}, {p['reason']}")) for p in session["missing"]
        ]
    lines += [Text(), Text("HISTORY, newest first", "dim")]
    for event in reversed(session["events"]):
        time = event["time"].partition("T")[2].partition(".")[0]
        lines += say(f"{time}  {event['event']}  {event['detail']}".rstrip())
    return lines


def wrapped(text: str, width: int | None, indent: str) -> list[Text]:
    """Text in as many lines as it takes."""
    return [
        Text(line) for line in wrap(text, max(width or 10**6, len(indent) + 1), subsequent_indent=indent)
    ] or [Text()]


def _facts(session: Json) -> list[str]:
    policy = f"policy {session['policy']}" if session["policy"] else "no policy"
    manager = f"path manager {session['path_manager']}" if session["path_manager"] else "no path manager"
    facts = [
        f"{session['token']}  {session['role']}  {session['state']}  {duration_text(session['age_s'])}",
        f"{policy}  {manager}",
        f"cgroup {session['cgroup'] or 'unknown'}",
    ]
    if totals := session.get("totals"):
        sent, received = bytes_text(totals["bytes_acked"]), bytes_text(totals["bytes_received"])
        closed = len(session["closed_subflows"]) + session["earlier_subflows"]["count"]
        facts.append(f"sent {sent}  received {received}  closed subflows {closed}")
    return facts


def subflow_rows(session: Json, series: Json) -> list[SubflowRow]:
    values: dict[tuple[str, str], Values] = {}
    interfaces: dict[str, str] = {}
    for one in series["series"]:
        id_ = one["labels"].get("subflow", "")
        values[one["name"], id_] = one["values"]
        interfaces[id_] = one["labels"].get("interface") or "–"
    last = {
        subflow["id"]: sum(_last(values.get((name, subflow["id"]), ())) for name in RATES)
        for subflow in session["subflows"]
    }
    whole = sum(last.values())
    return [
        SubflowRow(
            subflow,
            interfaces.get(subflow["id"], "–"),
            values.get(("sent_per_second", subflow["id"]), ()),
            values.get(("received_per_second", subflow["id"]), ()),
            values.get(("rtt", subflow["id"]), ()),
            last[subflow["id"]] / whole if whole else None,
        )
        for subflow in session["subflows"]
    ]


def _last(values: Values) -> float:
    return (values[-1] or 0.0) if values else 0.0


def _subflow_lines(rows: Sequence[SubflowRow], look: Look) -> list[Text]:
    """For each what it is, in two lines where that is too long for one, and its figures."""
    within = look.width and Look(look.glyphs, look.width - len(INDENT))
    titles, *figures = table(_columns(look.glyphs), rows, within or look)
    lines = [Text("SUBFLOWS", "dim"), Text(INDENT) + titles]
    for row, line in zip(rows, figures, strict=True):
        subflow, clean = row.subflow, look.glyphs.clean
        style = "green" if subflow["state"] == "established" else "yellow"
        name, facts = Text(clean(subflow["id"]), "bold"), Text(clean(subflow["state"]), style)
        for word in ("backup", "stuck"):
            facts.append(f", {word}" if subflow[word] else "", "yellow")
        # The id has the pair of addresses that a reason may name.
        facts.append(f", {clean(subflow['reason'].partition(': ')[0])}")
        if look.width is None or name.cell_len + len(INDENT) + facts.cell_len <= look.width:
            lines.append(Text.assemble(name, INDENT, facts))
        else:
            lines += [name, Text(INDENT) + facts]
        lines.append(Text(INDENT) + line)
    return lines


def _columns(glyphs: Glyphs) -> list[Column[SubflowRow]]:
    def last(values: Values) -> str:
        return rate_text(values[-1] if values else None)

    def share(row: SubflowRow, width: int) -> Cell:
        text = "–" if row.share is None else f"{row.share:.0%}"
        return Cell(f"{text:>4} {glyphs.bar(row.share, width - 5)}".rstrip() if width else text)

    def both(row: SubflowRow, width: int) -> Cell:
        return Cell(glyphs.sparkline(sums((row.sent, row.received)), width), "cyan")

    def all_sent(row: SubflowRow, width: int) -> Cell:
        return Cell(bytes_text(row.subflow["bytes_sent"]))

    def all_received(row: SubflowRow, width: int) -> Cell:
        return Cell(bytes_text(row.subflow["bytes_received"]))

    return [
        Column("INTERFACE", lambda row, width: Cell(row.interface), 4, most=15),
        Column("SENT", lambda row, width: Cell(last(row.sent)), 0, least=RATE, right=True),
        Column("RECEIVED", lambda row, width: Cell(last(row.received)), 1, least=RATE, right=True),
        Column("SHARE", share, 3, most=15, steady=True),
        Column("HISTORY", both, 5, least=8, most=60, drawn=True),
        Column("RTT", lambda row, width: Cell(rtt_text(row.subflow["rtt_s"])), 2, least=RTT, right=True),
        Column(
            "RTT HISTORY", lambda row, width: Cell(glyphs.sparkline(row.rtt, width), "magenta"), 6, least=8,
            most=40, drawn=True,
        ),
        Column("RETRANS", lambda row, width: Cell(number_text(row.subflow["retransmits"])), 7, right=True),
        Column("CWND", lambda row, width: Cell(number_text(row.subflow["cwnd"])), 8, right=True),
        Column("CC", lambda row, width: Cell(row.subflow["congestion_control"] or "–"), 9, most=15),
        Column("ALL SENT", all_sent, 10, least=10, right=True),
        Column("ALL RECEIVED", all_received, 11, right=True),
    ]  # fmt: skip
