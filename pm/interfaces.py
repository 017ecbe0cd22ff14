# SPDX-License-Identifier: Apache-2.0
"""Which interface is which: the kernel's index tells them apart, from when one is made until it is deleted.

Its name may change at any time, and another may have the name or the index that it had. Whoever keeps
something about an interface keeps it by ``Interface``; names are for those who look.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

GONE_NAMED = "{} (gone)"


@dataclass(slots=True, eq=False)
class Interface:
    """One interface as long as it lives; ``name`` is its last, ``gone`` whether it was deleted."""

    name: str
    gone: bool = False


UNKNOWN = Interface("")


class Interfaces:
    """Those that there are, by index."""

    def __init__(self) -> None:
        self._by_index: dict[int, Interface] = {}
        self.deleted = 0
        """How many were, so far."""

    def seen(self, index: int, name: str) -> Interface:
        """The one that has this index now; it has this name."""
        found = self._by_index.setdefault(index, Interface(name))
        found.name = name
        return found

    def gone(self, index: int) -> None:
        if found := self._by_index.pop(index, None):
            found.gone = True
            self.deleted += 1

    def only(self, indices: Collection[int]) -> None:
        """All others are gone: these are all that there are."""
        for index in self._by_index.keys() - indices:
            self.gone(index)

    def by_name(self, interfaces: Iterable[Interface]) -> dict[str, list[Interface]]:
        """These by the name that shows them.

        Those that are gone share it, where they had the same one; it says so where another has that name now.
        """
        live = {interface.name for interface in self._by_index.values()}
        found: dict[str, list[Interface]] = {}
        for interface in dict.fromkeys(interfaces):
            taken = interface.gone and interface.name in live
            name = GONE_NAMED.format(interface.name) if taken else interface.name
            found.setdefault(name, []).append(interface)
        return found
