# SPDX-License-Identifier: Apache-2.0
"""``none``: the application's own subflow and no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pm.model import LocalAddress, Want, Wanted
from pm.path_managers.base import SessionView


class NonePathManager:
    name: ClassVar[str] = "none"
    summary: ClassVar[str] = "Opens no subflows."

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Parameters:
        pass

    @staticmethod
    def wanted(session: SessionView, addresses: Sequence[LocalAddress], parameters: Parameters) -> Wanted:
        return {session.initial_pair: Want()}
