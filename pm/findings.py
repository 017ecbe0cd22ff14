# SPDX-License-Identifier: Apache-2.0
"""A reason why something is not there, with what shows it and what helps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """``code`` is a stable name in snake_case, for programs; ``text`` is a sentence, for people.

    ``evidence`` has what the kernel said, one fact each. ``commands`` fix it, or look closer where
    nothing here can fix it; the text says which. A guess has ``likely``: nothing proves it.
    """

    code: str
    text: str
    evidence: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    likely: bool = False
