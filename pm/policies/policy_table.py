# SPDX-License-Identifier: GPL-2.0-only
"""Which policy owns a cgroup: the nearest and most specific one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pm.policies.globs import _NEVER, _above_regexes, _regex, specificity, split_glob

if TYPE_CHECKING:
    from pm.policies.model import Policy


class PolicyTable:
    """The policies, compiled. Their order in the file makes no difference."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        ranked = sorted(policies, key=lambda p: (specificity(p.cgroup), p.cgroup, p.name), reverse=True)
        self._ranked = tuple(ranked)
        # One alternation: the first branch that matches is the most specific; lastindex tells which.
        self._exact = re.compile("|".join(f"({_regex(split_glob(p.cgroup))})" for p in ranked) or _NEVER)
        above = [regex for p in ranked for regex in _above_regexes(split_glob(p.cgroup))]
        self._above = re.compile("|".join(above) if above else _NEVER)

    def match(self, cgroup: str) -> Policy | None:
        """The policy that owns processes in this cgroup, or None.

        The nearest cgroup (this one or an ancestor) that any policy's glob matches decides. If several
        globs match that cgroup, the most specific of them wins (see ``specificity``).
        """
        while True:
            if policy := self.direct(cgroup):
                return policy
            if cgroup == "/":
                return None
            cgroup = cgroup.rpartition("/")[0] or "/"

    def direct(self, cgroup: str) -> Policy | None:
        """The policy whose glob matches exactly this cgroup: its classifier is attached here."""
        found = self._exact.fullmatch("" if cgroup == "/" else cgroup)
        return self._ranked[found.lastindex - 1] if found and found.lastindex else None

    def could_match_below(self, cgroup: str) -> bool:
        """Whether a cgroup below this one (itself not counted) could match a glob."""
        return self._above.fullmatch("" if cgroup == "/" else cgroup) is not None


def compile_policies(policies: Iterable[Policy]) -> PolicyTable:
    """Prepare policies for matching; their globs must be valid (see ``split_glob``)."""
    return PolicyTable(policies)
