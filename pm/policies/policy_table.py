# SPDX-License-Identifier: Apache-2.0
"""Which policy owns a cgroup: the nearest and most specific one, and how specific a glob is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from copy import copy
from typing import TYPE_CHECKING

from pm.policies.globs import AUTO, NEVER, above_regexes, glob_regex, level_tokens, split_glob

if TYPE_CHECKING:
    from pm.policies.model import Policy


class PolicyTable:
    """The policies, compiled. Their order in the file makes no difference."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        every = list(policies)
        self.automatic = next((p for p in every if p.cgroup == AUTO), None)
        """The policy for the cgroups that ``found`` names."""
        self.found: frozenset[str] = frozenset()
        self._above_found: frozenset[str] = frozenset()
        ranked = [p for p in every if p.cgroup != AUTO]
        ranked.sort(key=lambda p: (specificity(p.cgroup), p.cgroup, p.name), reverse=True)
        self._ranked = tuple(ranked)
        # One alternation: the first branch that matches is the most specific; lastindex tells which.
        self._exact = re.compile("|".join(f"({glob_regex(split_glob(p.cgroup))})" for p in ranked) or NEVER)
        above = [regex for p in ranked for regex in above_regexes(split_glob(p.cgroup))]
        self._above = re.compile("|".join(above) if above else NEVER)

    @property
    def policies(self) -> tuple[Policy, ...]:
        """All of them, the most specific first, and last the one for ``auto``."""
        return (*self._ranked, self.automatic) if self.automatic else self._ranked

    def with_found(self, cgroups: Iterable[str]) -> PolicyTable:
        """The same policies, of which the one for ``auto`` matches exactly these cgroups.

        Of two policies that match the same cgroup, the other one wins.
        """
        made = copy(self)
        made.found = frozenset(cgroups) if self.automatic else frozenset()
        made._above_found = frozenset(above for cgroup in made.found for above in _above(cgroup))
        return made

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
        if found and found.lastindex:
            return self._ranked[found.lastindex - 1]
        return self.automatic if cgroup in self.found else None

    def could_match_below(self, cgroup: str) -> bool:
        """Whether a cgroup below this one (itself not counted) could match a glob."""
        return (
            cgroup in self._above_found or self._above.fullmatch("" if cgroup == "/" else cgroup) is not None
        )


def _above(cgroup: str) -> Iterator[str]:
    """The ancestors of a cgroup."""
    while cgroup != "/":
        cgroup = cgroup.rpartition("/")[0] or "/"
        yield cgroup


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
