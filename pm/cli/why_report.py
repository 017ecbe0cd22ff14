# SPDX-License-Identifier: GPL-2.0-only
"""What ``why`` prints for people, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from pm.names import printable

Json = dict[str, Any]
WIDTH = 80


def why_report(why: Json) -> str:
    """A paragraph per finding; commands stand on lines of their own, never broken."""
    policy = f"policy {why['policy']}" if why["policy"] else "no policy"
    lines = [f"session {why['token']}, {policy}"]
    for finding in why["findings"]:
        lines += ["", *finding_lines(finding)]
    for pair in why["pairs"]:
        lines += ["", f"{pair['local']} × {pair['remote']} port {pair['remote_port']}: {_state(pair)}"]
        for finding in pair["findings"]:
            lines += finding_lines(finding, "  ")
    if not why["findings"] and not why["pairs"]:
        lines += ["", "Nothing is missing: every pair that is wanted has its subflow."]
    return "\n".join(map(printable, lines))


def finding_lines(finding: Json, indent: str = "") -> Iterator[str]:
    """A finding: its sentence, the evidence, and the commands."""
    likely = "Likely: " if finding["likely"] else ""
    yield from _wrapped(f"{likely}{finding['text']} [{finding['code']}]", indent, indent)
    for fact in finding["evidence"]:
        yield from _wrapped(fact, f"{indent}  - ", f"{indent}    ")
    for command in finding["commands"]:
        yield f"{indent}  $ {command}"


def _state(pair: Json) -> str:
    words = [pair["state"].replace("_", " ")]
    if pair["age_s"] is not None:
        words.append(f"for {pair['age_s']:.1f} s")
    if pair["retransmits"] is not None:
        words.append(f"{pair['retransmits']} SYN retransmitted")
    if pair["failures"]:
        words.append(f"{pair['failures']} failures")
    if pair["retry_in_s"] is not None:
        words.append(f"next try in {pair['retry_in_s']:.0f} s")
    return ", ".join(words)


def _wrapped(text: str, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
