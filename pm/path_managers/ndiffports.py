# SPDX-License-Identifier: Apache-2.0
"""``ndiffports``: several subflows between the initial addresses, on different ports (paper, 4.4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.model import LocalAddress, Want, Wanted
from pm.path_managers.base import SessionView
from pm.path_managers.remotes import reachable


class NDiffPorts:
    name: ClassVar[str] = "ndiffports"
    summary: ClassVar[str] = (
        "Several subflows between the addresses of the initial one, on different source ports."
    )

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Parameters:
        subflows: Annotated[
            int, Ge(1), Le(32), Doc("Total number of subflows, including the initial one.")
        ] = 2

    @staticmethod
    def wanted(session: SessionView, addresses: Sequence[LocalAddress], parameters: Parameters) -> Wanted:
        possible = (session.remote, session.remote_port) in reachable(session)
        return {session.initial_pair: Want(parameters.subflows if possible else 1)}
