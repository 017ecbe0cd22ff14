# SPDX-License-Identifier: Apache-2.0
"""One thing that the service needs of the system, and whether it is there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SystemCheck:
    """One capability of the system: ``found`` says what is there, ``remedy`` how to fix it ("" if ``ok``)."""

    name: str
    ok: bool
    required: bool
    found: str
    remedy: str


def check(name: str, ok: bool, found: str, remedy: str, required: bool = True) -> SystemCheck:
    """A check; ``remedy`` counts where it failed."""
    return SystemCheck(name, ok, required, found, "" if ok else remedy)
