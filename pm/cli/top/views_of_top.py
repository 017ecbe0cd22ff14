# SPDX-License-Identifier: Apache-2.0
"""The views of ``top`` and their orders: what the parser of all commands needs, quick to import."""

from __future__ import annotations

from enum import StrEnum


class View(StrEnum):
    INTERFACES = "interfaces"
    POLICIES = "policies"
    SESSIONS = "sessions"


VIEWS = tuple(View)
# The first is what a view starts with; the greatest comes first, of names the least.
SORTS: dict[View, tuple[str, ...]] = {
    View.INTERFACES: ("rate", "rtt", "retransmits", "subflows", "name"),
    View.POLICIES: ("rate", "sessions", "name"),
    View.SESSIONS: ("rate", "bytes", "subflows", "age"),
}
