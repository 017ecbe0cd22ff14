# SPDX-License-Identifier: GPL-2.0-only
"""Which policy owns a cgroup: the nearest and most specific one, and how specific a glob is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pm.policies.globs import NEVER, above_regexes, glob_regex, level_tokens, split_glob

if TYPE_CHECKING:
    from pm.policies.model import Policy


class PolicyTable:
    """The policies, compiled. Their order in the file makes no difference."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        ranked = sorted(policies, key=lambda p: (specificity(p.cgroup), p.cgroup, p.name), reverse=True)
        self._ranked = tuple(ranked)
        # One alternation: the first branch that matches is the most specific; lastindex tells which.
        self._exact = re.compile("|".join(f"({glob_regex(split_glob(p.cgroup))})" for p in ranked) or NEVER)
        above = [regex for p in ranked for regex in above_regexes(split_glob(p.cgroup))]
        self._above = re.compile("|".join(above) if above else NEVER)

    @property
    def policies(self) -> tuple[Policy, ...]:
        """All of them, the most specific first."""
        return self._ranked

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


def specificity(glob: str) -> tuple[int, ...]:
    """The rank of a glob among those that match the same cgroup: the greatest wins.

    The numbers compared are, in this order: levels without any wildcard, levels other than ``**``, literal
    characters in levels that have wildcards, ``[...]`` sets, single characters (literal, set or
    ``?``), and fewer ``*``. Globs that are equal in all of these are ordered by their text.
    """
    literal_levels = levels = literals = sets = singles = stars = 0
    for level in split_glob(glob):
        if level == "**":
            continue
        tokens = level_tokens(level)
        levels += 1
        wild = [t for t in tokens if t in ("*", "?") or len(t) > 1]
        literal_levels += not wild
        literals += len(tokens) - len(wild) if wild else 0
        sets += sum(len(t) > 1 for t in tokens)
        stars += tokens.count("*")
        singles += len(tokens) - tokens.count("*")
    return literal_levels, levels, literals, sets, singles, -stars
