# SPDX-License-Identifier: GPL-2.0-only
"""``program``: a third party's path manager in BPF C, for the patched kernel (docs/path-managers.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from typing_extensions import Doc

from pm.config import checks
from pm.model import LocalAddress, Origin, Session, Want, Wanted

# Built-in path managers that the patched kernel has as programs too (bpf_pm/path_managers).
BUILT_IN = ("none", "ndiffports", "fullmesh", "backup")


class Program:
    name: ClassVar[str] = "program"
    summary: ClassVar[str] = (
        "A path manager in BPF C of your own, on the patched kernel only (`docs/path-managers.md`)."
    )

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Parameters:
        name: Annotated[str, checks.IDENTIFIER, Doc("Prefix of the function in the file.")]
        source: Annotated[str, checks.PATH, Doc("BPF C file.")]
        parameters: Annotated[
            dict[str, int],
            checks.PROGRAM_PARAMETERS,
            Doc("Whole numbers by name; the file reads them with `PARAMETER`."),
        ] = field(default_factory=dict)

        def __post_init__(self) -> None:
            if self.name in BUILT_IN:
                raise ValueError(f"`{self.name}` is a built-in path manager: choose another `name`")

    @staticmethod
    def wanted(session: Session, addresses: Sequence[LocalAddress], parameters: Parameters) -> Wanted:
        # The program knows what it wants; what it opened is as wanted.
        wanted: Wanted = {}
        for subflow in session.subflows:
            if subflow.origin is not Origin.PEER:
                count = wanted[subflow.pair].subflows if subflow.pair in wanted else 0
                wanted[subflow.pair] = Want(count + 1, subflow.backup)
        return wanted
