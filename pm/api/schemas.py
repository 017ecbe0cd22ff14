# SPDX-License-Identifier: Apache-2.0
"""JSON Schemas (2020-12, as in OpenAPI 3.1) of the types in ``shapes`` and its neighbours, by introspection.

``pm.config.schema`` turns the configuration into a JSON Schema, too. The two share no code: that one
writes everything inline and knows ``Notation``, ``Check`` and path managers; this one refers to named
components and knows ``TypedDict``. What they have in common is the table of five scalar types.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from enum import StrEnum
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from annotated_types import Ge, Le
from typing_extensions import Doc

Schema = dict[str, Any]

_SCALARS: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
}


class Written(NamedTuple):
    """How a text is written: a regular expression, or formats of JSON Schema, one of which it has."""

    pattern: str = ""
    formats: tuple[str, ...] = ()

    def schema(self) -> Schema:
        formats = [{"format": name} for name in self.formats]
        either = {"anyOf": formats} if len(formats) > 1 else formats[0] if formats else {}
        return either | ({"pattern": self.pattern} if self.pattern else {})


ADDRESS = Written(formats=("ipv4", "ipv6"))
TIME = Written(formats=("date-time",))
TOKEN = Written("^0x[0-9a-f]{8}$")
TOKEN_INPUT = Written("^((0[xX])?[0-9a-fA-F]{1,8}|[0-9]{1,10})$")
CURSOR = Written("^[0-9a-f]{8}-[0-9]{1,18}$")
DIGEST = Written("^[0-9a-f]{64}$")


class Hint(NamedTuple):
    """One field of a dataclass: its type without ``Annotated`` and ``| None``, and the metadata."""

    type: Any
    optional: bool
    metadata: tuple[Any, ...]


@cache
def hints_of(shape: Any) -> dict[str, Hint]:
    """The fields of a dataclass by name, in order."""
    hints = {}
    for name, hint in get_type_hints(shape, include_extras=True).items():
        metadata: tuple[Any, ...] = ()
        while get_origin(hint) is Annotated:
            metadata += hint.__metadata__
            hint = hint.__origin__
        members = [arg for arg in get_args(hint) if arg is not type(None)]
        optional = _is_union(hint) and len(members) < len(get_args(hint))
        hints[name] = Hint(members[0] if optional else hint, optional, metadata)
    return hints


def schema_of(hint: Any, components: dict[str, Schema]) -> Schema:
    """The schema of a type. Named types are added to ``components`` and referred to."""
    if get_origin(hint) is Annotated:
        schema = dict(schema_of(hint.__origin__, components))
        for item in hint.__metadata__:
            match item:
                case Ge(ge=low):
                    schema["minimum"] = low
                case Le(le=high):
                    schema["maximum"] = high
                case Written():
                    schema |= item.schema()
                case Doc(documentation=text):
                    schema["description"] = text
        return schema
    if hint in _SCALARS:
        return _SCALARS[hint]
    if is_typeddict(hint) or dataclasses.is_dataclass(hint):
        return _named(hint, components)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"type": "string", "enum": [member.value for member in hint]}
    if get_origin(hint) is Literal:
        return {"type": "string", "enum": list(get_args(hint))}
    if get_origin(hint) is list:
        return {"type": "array", "items": schema_of(get_args(hint)[0], components)}
    if get_origin(hint) is dict:
        return {"type": "object", "additionalProperties": schema_of(get_args(hint)[1], components) or True}
    if _is_union(hint):
        return _union([schema_of(arg, components) for arg in get_args(hint)])
    raise TypeError(f"no schema for {hint!r}")


def _union(members: list[Schema]) -> Schema:
    scalar = all(set(member) == {"type"} for member in members)
    return {"type": [member["type"] for member in members]} if scalar else {"anyOf": members}


def _named(shape: Any, components: dict[str, Schema]) -> Schema:
    name = shape.__name__.removesuffix("Shape")
    if name not in components:
        components[name] = {}  # before its fields: a type may refer to itself
        properties = {
            field: schema_of(hint, components)
            for field, hint in get_type_hints(shape, include_extras=True).items()
        }
        if dataclasses.is_dataclass(shape):
            required = []
            for field in dataclasses.fields(shape):
                if field.default is dataclasses.MISSING:
                    required.append(field.name)
                elif field.default is not None:
                    properties[field.name] = {**properties[field.name], "default": field.default}
        else:
            required = sorted(shape.__required_keys__)
        schema: Schema = {"type": "object", "properties": properties}
        # A body has what it has; answers may get more fields in a later version.
        if dataclasses.is_dataclass(shape):
            schema["additionalProperties"] = False
        if required:
            schema["required"] = required
        if shape.__doc__:
            schema["description"] = inspect.cleandoc(shape.__doc__)
        components[name] = schema
    return {"$ref": f"#/components/schemas/{name}"}


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)
