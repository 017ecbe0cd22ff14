# SPDX-License-Identifier: Apache-2.0
"""The ways from the local addresses to the remote ones that sessions know: asked once, until routes change.

Sessions share the answers, since most of a host's sessions have the same few remotes. What a peer names
cannot make them grow without end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pm.model import LocalAddress, Way, family_of

DESTINATIONS_MAX = 4096


class Destination(NamedTuple):
    """Where packets go: the end at which a peer can be reached, and what a session's sockets add to it.

    ``mark`` is SO_MARK and ``device`` the interface that the application bound its socket to; 0 for none.
    """

    remote: str
    remote_port: int
    mark: int = 0
    device: int = 0


Ways = Mapping[str, Way]
"""By local address."""


class Judge(Protocol):
    """Asks the kernel for one way."""

    def __call__(
        self, address: LocalAddress, remote: str, remote_port: int, mark: int, device: int, /
    ) -> Way: ...


class Watcher(Protocol):
    """Hears of ways as they become known and as they change; None for a destination that is forgotten."""

    def __call__(self, destination: Destination, ways: Ways | None, /) -> None: ...


def anywhere(address: LocalAddress, remote: str, remote_port: int, mark: int, device: int) -> Way:
    """Judges nothing: opening a subflow will show."""
    return Way(address.ifindex if device else 0)


def unwatched(destination: Destination, ways: Ways | None) -> None:
    """Nobody needs to hear of ways."""


@dataclass(slots=True)
class _Known:
    asked: int  # the generation
    ways: dict[str, Way]


class Routes:
    def __init__(self, judge: Judge, on_ways: Watcher = unwatched) -> None:
        self._judge = judge
        self._on_ways = on_ways
        self._addresses: tuple[LocalAddress, ...] = ()
        self._known: dict[Destination, _Known] = {}
        self._generation = 0
        self._changed = False

    def set_addresses(self, usable: Iterable[LocalAddress]) -> None:
        """The usable local addresses of now."""
        self._addresses = tuple(usable)
        self.ask_again()

    def ask_again(self) -> None:
        """Routes have changed: no answer holds any more."""
        self._generation += 1

    def ways_to(self, destination: Destination) -> Ways:
        """The ways from all usable addresses of the destination's family."""
        known = self._known.get(destination)
        if known and known.asked == self._generation:
            return known.ways
        family = family_of(destination.remote)
        ways = {a.ip: self._judge(a, *destination) for a in self._addresses if a.family == family}
        if known and known.ways == ways:
            known.asked = self._generation
            return ways
        self._changed = self._changed or known is not None
        if known is None and len(self._known) >= DESTINATIONS_MAX:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._on_ways(oldest, None)
        self._known[destination] = _Known(self._generation, ways)
        self._on_ways(destination, ways)
        return ways

    def outdated(self) -> list[Destination]:
        """Those whose ways were asked for before the last change of routes or addresses."""
        return [d for d, known in self._known.items() if known.asked != self._generation]

    def take_changed(self) -> bool:
        """Whether the ways to a known destination have changed since this was asked last."""
        changed, self._changed = self._changed, False
        return changed
