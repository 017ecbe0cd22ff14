# SPDX-License-Identifier: Apache-2.0
"""One session in full, for people: 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

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
        (
            "remote addresses",
            ", ".join(f"{endpoint(r)} (id {r['address_id']})" for r in session["remote_addresses"]),
        ),
    )
    parts: list[RenderableType] = [facts, "", subflows_list(session["subflows"])]
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
    rows = [_figures(subflow) for subflow in subflows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    text = Text(no_wrap=True, overflow="ignore")
    text.append(f"SUBFLOW, STATE, REASON\n    {_row(header, widths)}", "dim")
    for subflow, figures in zip(subflows, rows, strict=True):
        # The id has the pair of addresses that a reason may name.
        facts = [subflow["state"], *["backup"] * subflow["backup"], subflow["reason"].partition(": ")[0]]
        text.append(f"\n{subflow['id']}", "bold").append(f"  {', '.join(map(printable, facts))}")
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
