# SPDX-License-Identifier: GPL-2.0-only
"""``ndiffports``: several subflows between the initial addresses, on different ports (paper, 4.4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.model import LocalAddress, Role, Want, Wanted
from pm.path_managers.base import SessionView


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
        # A server cannot connect to the client's ephemeral port; and a server that set the C flag
        # refuses joins to its initial address (RFC 8684, section 3.1).
        possible = session.role is Role.CLIENT and not session.deny_join_id0
        count = parameters.subflows if possible else 1
        return {session.initial_pair: Want(count)}
