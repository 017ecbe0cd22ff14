# SPDX-License-Identifier: Apache-2.0
"""``fullmesh``: every usable local address with every known remote one of its family (paper, 4.4.2)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.model import LocalAddress, Origin, Pair, Want, Wanted
from pm.path_managers.base import SessionView
from pm.path_managers.remotes import candidates, reachable


class FullMesh:
    name: ClassVar[str] = "fullmesh"
    summary: ClassVar[str] = (
        "Subflows between every usable local address and every known remote address of the same family."
    )

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Parameters:
        subflows_per_pair: Annotated[
            int, Ge(1), Le(8), Doc("Number of subflows on each pair of addresses.")
        ] = 1
        max_subflows: Annotated[
            int, Ge(1), Le(64), Doc("Total number of subflows of a session, including the initial one.")
        ] = 8

    @staticmethod
    def wanted(session: SessionView, addresses: Sequence[LocalAddress], parameters: Parameters) -> Wanted:
        # Subflows are counted in rounds: a cap that is too small for several subflows per pair leaves
        # every pair its first one.
        pairs = candidates(session, addresses)
        order = _in_order(session, pairs)
        counts = dict.fromkeys(order[: parameters.max_subflows], 0)
        left = parameters.max_subflows
        for _ in range(parameters.subflows_per_pair):
            for pair in counts:
                if left and (pair in pairs or not counts[pair]):
                    counts[pair] += 1
                    left -= 1
        return {
            pair: Want(count, pair in pairs and pairs[pair].backup) for pair, count in counts.items() if count
        }


def _in_order(session: SessionView, pairs: Collection[Pair]) -> list[Pair]:
    """Which pairs come first where a cap is short.

    The initial one, which a cap never removes; one that keeps failing holds no place that another
    could use.
    """
    initial = session.initial_pair
    own = any(s.pair == initial and s.origin is Origin.INITIAL for s in session.subflows)
    working = {s.pair for s in session.subflows if s.working}
    # The application chose its address itself: it may be one that the rules exclude.
    there = (initial.remote, initial.remote_port) in reachable(session)
    openable = there and not session.local_lost and initial not in session.unroutable
    wanted = [initial] if own or openable else []
    wanted += [pair for pair in pairs if pair != initial]
    return sorted(
        wanted, key=lambda p: p in session.failing and p not in working and not (own and p == initial)
    )
