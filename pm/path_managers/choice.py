# SPDX-License-Identifier: GPL-2.0-only
"""The path manager that a policy chooses: its name and its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pm.path_managers.registry import registry

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema


@dataclass(frozen=True, slots=True)
class PathManagerChoice:
    """A path manager by name with its parameters (an instance of that path manager's ``Parameters``)."""

    name: str
    parameters: Any

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return path_manager_schema(handler)


def path_manager_schema(handler: GetCoreSchemaHandler) -> CoreSchema:
    """The schema of ``{name: parameters}``, with each path manager's own parameters."""
    from pydantic_core import core_schema

    choices = {
        name: core_schema.typed_dict_field(handler.generate_schema(path_manager.Parameters), required=False)
        for name, path_manager in registry().items()
    }
    by_name = core_schema.typed_dict_schema(choices, extra_behavior="forbid")

    def choose(value: dict[str, Any]) -> PathManagerChoice:
        if len(value) != 1:
            raise ValueError(f"must name one path manager, not {len(value)}: write `path_manager: none`")
        [(name, parameters)] = value.items()
        return PathManagerChoice(name, parameters)

    return core_schema.no_info_after_validator_function(choose, by_name)


def spelled_out(value: Any) -> Any:
    """A path manager as YAML has it in the form ``{name: parameters}``, which the schema takes.

    Not a validator: after one in Python, pydantic refuses JSON's lists where tuples are declared.
    """
    if isinstance(value, str):
        return {value: {}}
    if isinstance(value, dict):
        return {name: {} if parameters is None else parameters for name, parameters in value.items()}
    return value
