# SPDX-License-Identifier: Apache-2.0
"""What ``why`` prints for people, in 80 columns or those of a narrower terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from shutil import get_terminal_size
from typing import Any

from pm.cli.session_report import pair_state_text
from pm.names import printable

Json = dict[str, Any]
WIDTH = 80


def why_report(why: Json) -> str:
    """A paragraph per finding; commands stand on lines of their own, never broken."""
    lines = [session_text(why), *why_lines(why)]
    return "\n".join(map(printable, lines))


def session_text(why: Json) -> str:
    policy = f"policy {why['policy']}" if why["policy"] else "no policy"
    return f"session {why['token']}, {policy}"


def why_lines(why: Json) -> list[str]:
    """The findings of a session, each behind an empty line."""
    lines: list[str] = []
    for finding in why["findings"]:
        lines += ["", *finding_lines(finding)]
    for pair in why["pairs"]:
        lines += [
            "",
            f"{pair['local']} × {pair['remote']} port {pair['remote_port']}: {pair_state_text(pair)}",
        ]
        for finding in pair["findings"]:
            lines += finding_lines(finding, "  ")
    if not why["findings"] and not why["pairs"]:
        lines += ["", "Nothing is missing: every pair that is wanted has its subflow."]
    return lines


def finding_lines(finding: Json, indent: str = "") -> Iterator[str]:
    """A finding: its sentence, the evidence, and the commands."""
    likely = "Likely: " if finding["likely"] else ""
    yield from wrapped(f"{likely}{finding['text']} [{finding['code']}]", indent, indent)
    for fact in finding["evidence"]:
        yield from wrapped(fact, f"{indent}  - ", f"{indent}    ")
    for command in finding["commands"]:
        yield f"{indent}  {command}" if command.startswith("#") else f"{indent}  $ {command}"


def wrapped(text: str, first: str = "", others: str = "  ") -> list[str]:
    """Lines that fit; ``first`` and ``others`` are what they begin with."""
    return textwrap.wrap(
        text,
        min(WIDTH, max(get_terminal_size().columns, len(others) + 20)),
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
