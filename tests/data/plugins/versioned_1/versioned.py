# SPDX-License-Identifier: Apache-2.0
"""Version 1 of a path manager."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pm.model import LocalAddress, Want, Wanted
from pm.path_managers.base import SessionView


class Versioned:
    name: ClassVar[str] = "versioned"
    summary: ClassVar[str] = "The initial subflow."

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Parameters:
        interfaces: int = 2

    @staticmethod
    def wanted(session: SessionView, addresses: Sequence[LocalAddress], parameters: Parameters) -> Wanted:
        return {session.initial_pair: Want()}
