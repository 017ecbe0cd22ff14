# SPDX-License-Identifier: Apache-2.0
"""``program``: a third party's path manager in BPF C, for the patched kernel (docs/path-managers.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from typing_extensions import Doc

from pm.model import LocalAddress, Wanted
from pm.notation import IDENTIFIER, PATH, Check, check_numbers
from pm.path_managers.answers import as_it_is
from pm.path_managers.base import SessionView
from pm.path_managers.endpoints import Endpoints

# Built-in path managers that exist as BPF programs too (bpf_pm/path_managers/NAME.c), each with the names of
# its parameters in the order in which that file reads them: value[0], value[1].
BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "ndiffports": ("subflows",),
    "fullmesh": ("subflows_per_pair", "max_subflows"),
    "backup": (),
}

PROGRAM_PARAMETERS_MAX = 7  # `value` of struct path_parameters, less one that stays 0


def check_program_parameters(parameters: dict[str, int]) -> None:
    check_numbers(parameters, bits=32, most=PROGRAM_PARAMETERS_MAX)


PROGRAM_PARAMETERS = Check("a mapping of names to whole numbers", check_program_parameters)


class Program:
    name: ClassVar[str] = "program"
    summary: ClassVar[str] = (
        "Your own path manager in BPF C, for the patched kernel only (`docs/path-managers.md`)."
    )

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Parameters:
        name: Annotated[str, IDENTIFIER, Doc("Prefix of the function in the file.")]
        source: Annotated[str, PATH, Doc("BPF C file.")]
        parameters: Annotated[
            dict[str, int],
            PROGRAM_PARAMETERS,
            Doc("Whole numbers by name; the C file reads them with `PARAMETER`."),
        ] = field(default_factory=dict)

        def __post_init__(self) -> None:
            if self.name in (*BUILT_IN, Endpoints.name):
                raise ValueError(f"`{self.name}` is a built-in path manager: choose another `name`")

    @staticmethod
    def wanted(session: SessionView, addresses: Sequence[LocalAddress], parameters: Parameters) -> Wanted:
        # Only the program knows what it wants: the subflows that exist are taken as wanted.
        return as_it_is(session)
