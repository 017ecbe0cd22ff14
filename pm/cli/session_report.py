# SPDX-License-Identifier: Apache-2.0
"""One session in full, for people: 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from pm.cli.tables import (
    Json,
    add_row,
    bytes_text,
    duration_text,
    endpoint,
    facts_grid,
    new_table,
    number_text,
    pair_text,
)
from pm.names import printable

_SOURCES: Mapping[str, str] = {"kernel": "complete", "last_sample": "last sample"}


def session_report(session: Json) -> RenderableType:
    """One session: what it is, its subflows with all figures, failures, TCP options and history."""
    facts = facts_grid(
        ("token", session["token"]),
        ("role", session["role"]),
        ("state", session["state"]),
        ("policy", session["policy"] or "no policy owns its cgroup"),
        ("path manager", session["path_manager"] or "–"),
        ("cgroup", session["cgroup"] or "unknown"),
        ("managed", _managed(session)),
        ("age", duration_text(session["age_s"])),
        ("sent", f"{bytes_text(session['totals']['bytes_acked'])} (acknowledged, over all subflows)"),
        ("received", bytes_text(session["totals"]["bytes_received"])),
        (
            "remote addresses",
            ", ".join(f"{endpoint(r)} (id {r['address_id']})" for r in session["remote_addresses"]),
        ),
    )
    parts: list[RenderableType] = [facts, "", subflows_list(session["subflows"])]
    if session["closed_subflows"]:
        parts += ["", closed_list(session["closed_subflows"], session["earlier_subflows"])]
    if session["missing"]:
        missing = new_table("MISSING", "STATE", "REASON")
        for pair in session["missing"]:
            add_row(missing, pair_text(pair), pair_state_text(pair), pair["reason"])
        parts += ["", missing]
    if session["options"]:
        options = new_table("SUBFLOW", "OPTION", "SENT", "RECEIVED", "APPLIED", "REFUSED")
        for option in session["options"]:
            add_row(
                options,
                option["subflow"],
                option["option"],
                "yes" if option["sent"] else "–",
                "yes" if option["received"] else "–",
                number_text(option["applied"]),
                option["refused"] or "–",
            )
        parts += ["", options]
    events = new_table("TIME", "EVENT", "DETAIL")
    for event in session["events"]:
        add_row(events, event["time"], event["event"], event["detail"])
    return Group(*parts, "", events)


def subflows_list(subflows: Sequence[Json]) -> Text:
    """Two lines per subflow, in 80 columns: the id, as other commands take it, is never broken."""
    header = ["IDS", "RTT", "CWND", "CC", "SENT", "RECEIVED", "RETRANS", "RATE"]
    # The id has the pair of addresses that a reason may name.
    facts = [
        [subflow["state"], *["backup"] * subflow["backup"], subflow["reason"].partition(": ")[0]]
        for subflow in subflows
    ]
    return _two_lines_each(
        "SUBFLOW, STATE, REASON", header, subflows, facts, [_figures(subflow) for subflow in subflows]
    )


def closed_list(subflows: Sequence[Json], earlier: Json) -> Text:
    """The same for subflows that have ended, with the sum of those that are not listed any more."""
    header = ["LASTED", "RTT", "SENT", "RECEIVED", "RETRANS", "FIGURES"]
    facts = [[subflow["reason"].partition(": ")[2] or subflow["reason"]] for subflow in subflows]
    rows = [
        [
            duration_text(subflow["duration_s"]),
            duration_text(subflow["rtt_s"]),
            bytes_text(subflow["bytes_acked"]),
            bytes_text(subflow["bytes_received"]),
            number_text(subflow["retransmits"]),
            _SOURCES.get(subflow["source"], str(subflow["source"])),
        ]
        for subflow in subflows
    ]
    text = _two_lines_each("SUBFLOW THAT ENDED, WHY", header, subflows, facts, rows)
    if earlier["count"]:
        sent, received = bytes_text(earlier["bytes_acked"]), bytes_text(earlier["bytes_received"])
        text.append(f"\nand {earlier['count']} before them: {sent} sent, {received} received")
    return text


def _two_lines_each(
    title: str,
    header: Sequence[str],
    subflows: Sequence[Json],
    facts: Sequence[Sequence[str]],
    rows: Sequence[Sequence[str]],
) -> Text:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    text = Text(no_wrap=True, overflow="ignore")
    text.append(f"{title}\n    {_row(header, widths)}", "dim")
    for subflow, words, figures in zip(subflows, facts, rows, strict=True):
        text.append(f"\n{subflow['id']}", "bold").append(f"  {', '.join(map(printable, words))}")
        text.append(f"\n    {_row(figures, widths)}")
    return text


def _figures(subflow: Json) -> list[str]:
    rate = subflow["delivery_rate"]
    return [
        f"{subflow['local_id']} → {subflow['remote_id']}",
        duration_text(subflow["rtt_s"]),
        number_text(subflow["cwnd"]),
        subflow["congestion_control"] or "–",
        bytes_text(subflow["bytes_sent"]),
        bytes_text(subflow["bytes_received"]),
        number_text(subflow["retransmits"]),
        "–" if rate is None else f"{bytes_text(rate)}/s",
    ]


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(map(str.rjust, cells, widths))


def pair_state_text(pair: Json) -> str:
    """``opening for 3.2 s, retransmits: 2``: what is known of a missing pair."""
    words = pair["state"].replace("_", " ")
    if pair["age_s"] is not None:
        words += f" for {pair['age_s']:.1f} s"
    if pair["retransmits"]:
        words += f", retransmits: {pair['retransmits']}"
    if pair["failures"]:
        words += f", failures: {pair['failures']}"
    if pair["retry_in_s"] is not None:
        words += f", next try in {pair['retry_in_s']:.0f} s"
    return str(words)


def _managed(session: Json) -> str:
    if not session["managed"]:
        return "no: the kernel's own path manager manages it"
    program = session["program"]
    return f"yes, claimed by the program {program}" if program else "yes"
