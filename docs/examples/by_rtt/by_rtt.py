# SPDX-License-Identifier: Apache-2.0
"""``by_rtt``: a full mesh whose slow subflows are backups."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.model import LocalAddress, Want, Wanted
from pm.path_managers.base import SessionView
from pm.path_managers.remotes import candidates


class ByRtt:
    name: ClassVar[str] = "by_rtt"
    summary: ClassVar[str] = "A full mesh; subflows that are much slower than the fastest are backups."
    follows_rtt: ClassVar[bool] = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Parameters:
        factor: Annotated[int, Ge(2), Le(100), Doc("A backup has so many times the RTT of the fastest.")] = 4

    @staticmethod
    def wanted(session: SessionView, addresses: Sequence[LocalAddress], parameters: Parameters) -> Wanted:
        wanted: Wanted = {session.initial_pair: Want()}
        for pair, address in candidates(session, addresses).items():
            wanted[pair] = Want(backup=address.backup)
        # Unknown ones, such as those that are opening, stay what they are.
        rtts = {s.pair: s.rtt_us for s in session.subflows if s.working and s.rtt_us is not None}
        fastest = min(rtts.values(), default=0)
        for pair, rtt_us in rtts.items():
            if pair in wanted and rtt_us >= parameters.factor * fastest:
                wanted[pair] = Want(backup=True)
        return wanted
