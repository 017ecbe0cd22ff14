# SPDX-License-Identifier: Apache-2.0
"""The path manager that a policy chooses: its name and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any

from pm.errors import PmError
from pm.path_managers.base import PathManager
from pm.path_managers.registry import Identity, built_in, identity_of, refused, registry

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

RESTART = "restart the service"


@dataclass(frozen=True, slots=True)
class PathManagerChoice:
    """A path manager by name with its parameters (an instance of that path manager's ``Parameters``).

    It is pickled by names, and not made again where another package, version or set of fields is
    loaded than where it was pickled: PmError.
    """

    name: str
    parameters: Any

    @property
    def max_subflows(self) -> int:
        """How many subflows a session gets at most, by the parameter of that name; 0: there is none."""
        limits = (getattr(self.parameters, name, None) for name in ("max_subflows", "subflows"))
        return next((limit for limit in limits if isinstance(limit, int)), 0)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return path_manager_schema(handler)

    def __reduce__(self) -> tuple[Callable[..., PathManagerChoice], tuple[object, ...]]:
        values = {f.name: getattr(self.parameters, f.name) for f in fields(self.parameters) if f.init}
        return _restore, (self.name, identity_of(self.name), values)


def _restore(name: str, there: Identity | None, values: Mapping[str, Any]) -> PathManagerChoice:
    here = identity_of(name)
    if here != there:
        before = f"{here.distribution} {here.version}" if here else ""
        after = f"{there.distribution} {there.version}" if there else ""
        if not here:
            what = f"was installed after the service started ({after})"
        elif before != after:
            what = f"has changed from {before} to {after} since the service started"
        else:
            what = f"has other parameters now than {before} had when the service started"
        raise PmError(f"path manager `{name}` {what}", RESTART)
    try:
        return PathManagerChoice(name, registry()[name].Parameters(**values))
    except Exception as e:  # a third party's __post_init__
        raise PmError(f"path manager `{name}` refuses its parameters: {e}", RESTART) from e


def path_manager_schema(handler: GetCoreSchemaHandler) -> CoreSchema:
    """The schema of ``{name: parameters}``, with each path manager's own parameters."""
    from pydantic_core import core_schema

    choices = {
        name: core_schema.typed_dict_field(handler.generate_schema(path_manager.Parameters), required=False)
        for name, path_manager in usable().items()
    }
    by_name = core_schema.typed_dict_schema(choices, extra_behavior="forbid")

    def choose(value: dict[str, Any]) -> PathManagerChoice:
        if len(value) != 1:
            raise ValueError(f"must name one path manager, not {len(value)}: write `path_manager: none`")
        [(name, parameters)] = value.items()
        return PathManagerChoice(name, parameters)

    return core_schema.no_info_after_validator_function(choose, by_name)


def usable() -> dict[str, type[PathManager]]:
    """Every path manager whose parameters can be validated, by name."""
    ours = built_in()
    return {n: p for n, p in registry().items() if n in ours or not _problem_of(p.Parameters)}


def unusable() -> dict[str, str]:
    """Why a name that is installed cannot be used, by name."""
    invalid = {n: _problem_of(p.Parameters) for n, p in registry().items() if n not in built_in()}
    return {**refused(), **{name: problem for name, problem in invalid.items() if problem}}


@cache
def _problem_of(parameters: type) -> str:
    """Why pydantic cannot validate a third party's parameters, or ""."""
    from pydantic import TypeAdapter

    try:
        TypeAdapter(parameters)
    except Exception as e:  # whatever an annotation causes
        first = str(e).strip().split("\n")[0]
        return f"its `Parameters` cannot be validated ({type(e).__name__}: {first})"
    return ""


def spelled_out(value: Any) -> Any:
    """A path manager as YAML has it in the form ``{name: parameters}``, which the schema takes.

    Not a validator: after one in Python, pydantic refuses JSON's lists where tuples are declared.
    """
    if isinstance(value, str):
        return {value: {}}
    if isinstance(value, dict):
        return {name: {} if parameters is None else parameters for name, parameters in value.items()}
    return value
