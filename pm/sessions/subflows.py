# SPDX-License-Identifier: Apache-2.0
"""The subflows of one session, oldest first, found by their ends in constant time."""

from __future__ import annotations

from collections.abc import Iterable

from pm.kernel import SubflowAddress
from pm.model import Subflow

SCANNED_MAX = 16  # up to so many are looked through: nearly every session has fewer, and needs no index

Ends = tuple[str, int, str, int]


class Subflows(list[Subflow]):
    """A list without slack, since a busy host keeps one per session; with an index where it is long.

    A peer decides how many of its own there are until the service has closed those that are too many.
    """

    __slots__ = ("_index",)

    def __init__(self, subflows: Iterable[Subflow] = ()) -> None:
        super().__init__(subflows)
        self._index: dict[Ends, Subflow] | None = None

    def find(self, local: str, local_port: int, remote: str, remote_port: int) -> Subflow | None:
        """The subflow with this 4-tuple; with ``local_port`` 0 one whose source port is not known yet."""
        ends = local, local_port, remote, remote_port
        if self._index is not None:
            return self._index.get(ends)
        if len(self) > SCANNED_MAX:
            self._index = {ends_of(subflow): subflow for subflow in reversed(self)}
            return self._index.get(ends)
        for subflow in self:
            if (
                subflow.local_port == local_port
                and subflow.remote_port == remote_port
                and subflow.local == local
                and subflow.remote == remote
            ):
                return subflow
        return None

    def find_end(self, end: SubflowAddress) -> Subflow | None:
        """The subflow with the 4-tuple of an event or a socket."""
        return self.find(end.local, end.local_port, end.remote, end.remote_port)

    def find_end_or_opening(self, end: SubflowAddress) -> Subflow | None:
        """The same, or one that this end opens on that pair and whose source port is not known yet."""
        return self.find_end(end) or self.find(end.local, 0, end.remote, end.remote_port)

    def append(self, subflow: Subflow) -> None:
        super().append(subflow)
        if self._index is not None:
            self._index.setdefault(ends_of(subflow), subflow)

    def remove(self, subflow: Subflow) -> None:
        """By identity: subflows that are still opening look alike. No error where it is not there."""
        for i in range(len(self) - 1, -1, -1):  # what is refused is the newest
            if self[i] is subflow:
                del self[i]
                break
        if len(self) <= SCANNED_MAX:
            self._index = None
        self._forget(subflow)

    def learn_port(self, subflow: Subflow, local_port: int) -> None:
        """The source port of a subflow has become known."""
        if subflow.local_port != local_port:
            before = ends_of(subflow)
            subflow.local_port = local_port
            self._forget(subflow, before)
            if self._index is not None:
                self._index[ends_of(subflow)] = subflow

    def _forget(self, subflow: Subflow, ends: Ends | None = None) -> None:
        """Take a subflow out of the index; another one that is still opening may have the same ends."""
        ends = ends or ends_of(subflow)
        if self._index is None or self._index.get(ends) is not subflow:
            return
        del self._index[ends]
        if not ends[1]:
            twin = next((other for other in self if ends_of(other) == ends), None)
            self._index |= {ends: twin} if twin else {}


def ends_of(subflow: Subflow) -> Ends:
    """Its 4-tuple."""
    return subflow.local, subflow.local_port, subflow.remote, subflow.remote_port
