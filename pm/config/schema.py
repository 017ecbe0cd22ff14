# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of the configuration, derived from the annotations of ``pm.config.model``."""

from __future__ import annotations

import functools
import json
import operator
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum, StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from typing_extensions import Doc

from pm.config.model import Config
from pm.notation import Automatic, Check, Notation, Off, yaml_key
from pm.path_managers.answers import in_words
from pm.path_managers.base import PathManager
from pm.path_managers.choice import PathManagerChoice, usable

Schema = dict[str, Any]
PathManagers = Mapping[str, type[PathManager]]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SCALARS: dict[Any, str] = {str: "string", bool: "boolean", int: "integer", float: "number"}
_RANGES: dict[type, tuple[str, str]] = {
    Ge: ("ge", "minimum"),
    Gt: ("gt", "exclusiveMinimum"),
    Le: ("le", "maximum"),
    Lt: ("lt", "exclusiveMaximum"),
    MinLen: ("min_length", "minLength"),
    MaxLen: ("max_length", "maxLength"),
}


def json_schema(path_managers: PathManagers | None = None) -> Schema:
    """The JSON Schema (2020-12) of the whole configuration, without references.

    ``path_managers`` are those to include, by default all that are installed and can be used.
    """
    known = usable() if path_managers is None else path_managers
    root = {"$schema": DIALECT, "description": "Configuration of mptcp-pm."}
    return root | _of_dataclass(Config, dict(sorted(known.items())))


def undescribed(path_managers: PathManagers) -> dict[str, str]:
    """Those of third parties whose parameters JSON Schema cannot describe, with the reason."""
    found = {}
    for name, path_manager in path_managers.items():
        try:
            json.dumps(_of_dataclass(path_manager.Parameters, {}))
        except Exception as e:  # whatever an annotation or a default causes
            found[name] = in_words(e)
    return found


def schema_at(schema: Schema, loc: tuple[str | int, ...]) -> Schema:
    """The part of a schema that applies to a place in the document, {} if there is none."""
    for part in loc:
        mapping = variant(schema, "object") or {}
        items = (variant(schema, "array") or {}).get("items", {})
        others = mapping.get("additionalProperties") or {}
        schema = items if isinstance(part, int) else mapping.get("properties", {}).get(part, others)
    return schema


def variant(schema: Schema, kind: str) -> Schema | None:
    """The schema itself, or the one of its alternatives, that has this JSON type; None if none has."""
    return next((s for s in schema.get("anyOf", [schema]) if s.get("type") == kind), None)


def describe(schema: Schema) -> str:
    """Say in words what a value must be: "a whole number from 1 to 32"."""
    if "title" in schema:
        return str(schema["title"])
    if "enum" in schema:
        return alternatives(schema["enum"])
    match schema.get("type"):
        case "integer" | "number" as kind:
            low, high = schema.get("minimum"), schema.get("maximum")
            words = "a whole number" if kind == "integer" else "a number"
            if low is not None and high is not None:
                return f"{words} from {low} to {high}"
            return (
                words + (f", at least {low}" * (low is not None)) + (f", at most {high}" * (high is not None))
            )
        case "boolean":
            return "`true` or `false`"
        case "string":
            return "text"
        case "array":
            low, high = schema.get("minItems"), schema.get("maxItems")
            return (
                "a list (`[...]`)"
                + (f" with at least {items(low or 0)}" * bool(low))
                + (f" with at most {items(high or 0)}" * bool(high))
            )
        case "object":
            keys = ", ".join(f"`{key}:`" for key in schema.get("properties", ()))
            return f"a mapping ({keys})" if keys else "a mapping"
    variants = [describe(s) for s in schema.get("anyOf", ()) if s.get("type") != "null"]
    return ", or ".join(variants) or "something else"


def items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"


def alternatives(names: Iterable[str]) -> str:
    """Write one or more names as "`a`, `b` or `c`"."""
    *most, last = [f"`{name}`" for name in names]
    return f"{', '.join(most)} or {last}" if most else last


def _of_dataclass(cls: type, known: PathManagers) -> Schema:
    hints = get_type_hints(cls, include_extras=True)
    properties = {yaml_key(f.name): _of_field(f, hints[f.name], known) for f in fields(cls)}
    required = [
        yaml_key(f.name) for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING
    ]
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | {"required": required} if required else schema


def _of_field(f: Field[Any], hint: Any, known: PathManagers) -> Schema:
    schema = _of_type(hint, known)
    default = f.default
    if f.default_factory is not MISSING:
        try:
            default = f.default_factory()
        except Exception:  # a third party's
            default = MISSING
    if default is not MISSING and default is not None and not is_dataclass(default):
        schema["default"] = _as_yaml(default, hint)
    return schema


def _as_yaml(value: Any, hint: Any) -> Any:
    """A default value as a user would write it."""
    for notation in get_args(hint)[1:]:
        if isinstance(notation, Notation):
            return notation.show(value)
    if isinstance(value, tuple | list):
        return [_as_yaml(item, None) for item in value]
    if isinstance(value, IPv4Network | IPv6Network):
        return str(value)
    return value.value if isinstance(value, Enum) else value


def _of_type(hint: Any, known: PathManagers) -> Schema:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _of_annotated(arguments[0], arguments[1:], known)
    if origin in (Union, types.UnionType) and types.NoneType in arguments:
        rest = functools.reduce(operator.or_, (a for a in arguments if a is not types.NoneType))
        return {"anyOf": [_of_type(rest, known), {"type": "null"}]}
    if origin in (tuple, list) and arguments:
        return {"type": "array", "items": _of_type(arguments[0], known)}
    if hint is PathManagerChoice:
        return _of_path_managers(known)
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"enum": [str(member) for member in hint]}
    if is_dataclass(hint) and isinstance(hint, type):
        return _of_dataclass(hint, known)
    # A third party's parameters may have any type that pydantic validates.
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(hint).json_schema()
    except Exception:  # JSON has no words for it
        return {}


def _of_annotated(base: Any, metadata: tuple[Any, ...], known: PathManagers) -> Schema:
    notation = next((m for m in metadata if isinstance(m, Notation)), None)
    schema: Schema = _of_type(base, known) if notation is None else {"type": "string"}
    target: Schema = (
        schema["anyOf"][0] if get_origin(base) in (Union, types.UnionType) and not notation else schema
    )
    for item in metadata:
        match item:
            case Doc():
                schema["description"] = item.documentation
            case Off():
                # YAML 1.1 reads `off` as false, YAML 1.2 as text.
                schema["anyOf"] = [target, {"enum": ["off", False]}]
                schema["title"] = "`off` or a mapping"
            case Automatic():
                schema["enum"] = ["auto", True, False]
                schema["title"] = item.what
            case Notation() | Check():
                target["title"] = item.what
                if item.pattern:
                    target["pattern"] = item.pattern
            case _ if type(item) in _RANGES and notation is None:
                attribute, keyword = _RANGES[type(item)]
                if target.get("type") == "array":
                    keyword = keyword.replace("Length", "Items")
                target[keyword] = getattr(item, attribute)
    return schema


def _of_path_managers(known: PathManagers) -> Schema:
    by_name: Schema = {}
    for name, path_manager in known.items():
        parameters = _of_dataclass(path_manager.Parameters, known)
        optional = [] if "required" in parameters else [{"type": "null"}]
        by_name[name] = {"description": path_manager.summary, "anyOf": [parameters, *optional]}
    bare = [name for name, schema in by_name.items() if len(schema["anyOf"]) > 1]
    mapping = {
        "type": "object",
        "properties": by_name,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    title = f"a name ({alternatives(bare)}) or a name with its parameters"
    return {"anyOf": [{"enum": bare}, mapping], "title": title}
