# SPDX-License-Identifier: GPL-2.0-only
"""``fullmesh``: every usable local address with every known remote one of its family (paper, 4.4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.model import LocalAddress, Pair, Want, Wanted
from pm.path_managers.base import SessionView
from pm.path_managers.remotes import reachable


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
        # The initial pair comes first: a cap never removes it. Subflows are then counted in rounds: a
        # cap that is too small for several subflows per pair leaves every pair its first one.
        pairs: dict[Pair, bool] = {}
        initial = session.initial_pair
        remotes = reachable(session)
        for remote, port in remotes:
            for address in addresses:
                if (":" in address.ip) == (":" in remote):
                    pairs[Pair(address.ip, remote, port)] = address.backup
        order = [initial, *(p for p in pairs if p != initial)]
        counts = dict.fromkeys(order[: parameters.max_subflows], 0)
        left = parameters.max_subflows
        for _ in range(parameters.subflows_per_pair):
            for pair in counts:
                if left and (pair in pairs or not counts[pair]):
                    counts[pair] += 1
                    left -= 1
        return {pair: Want(count, pairs.get(pair, False)) for pair, count in counts.items() if count}
