# SPDX-License-Identifier: Apache-2.0
"""The log of the kernel's verifier."""

from __future__ import annotations

import re

# Instructions, source lines, states of registers and statistics: what the verifier did, not why it refused.
_STEPS = re.compile(
    r"\d+: |; |from \d+ to \d+|func#\d|(cur|old) state:|\s*(frame\d+: ?)?R\d+(_\w+)?=|mark_precise:"
    r"|(parent )?(last_idx|regs=|didn't have)|processed \d|verification time |stack depth |\s*$"
)


def reason_in(log: str) -> str:
    """The last line that says why a program is refused, "" where there is none."""
    lines = log.splitlines()
    return next((line for line in reversed(lines) if not _STEPS.match(line)), "").strip()
