# SPDX-License-Identifier: Apache-2.0
"""Turn queries and bodies into the dataclasses of ``input_shapes``, and report all that is wrong at once."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from annotated_types import Ge, Le

from pm.api.input_shapes import OpenSubflow
from pm.api.preview_shapes import Explain
from pm.api.problem_shapes import ParameterProblemShape
from pm.api.problems import BadRequest
from pm.api.schemas import Hint, hints_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def parse_query(shape: type[T], query: Mapping[str, str]) -> T:
    """Parse a query string as ``shape``. Raises BadRequest with all that is wrong."""
    hints = hints_of(shape)
    values: dict[str, Any] = dict(query)
    _refuse_twice(name for name, _ in query.items())
    for name, text in query.items():
        if name in hints and hints[name].type is int and re.fullmatch("[0-9]{1,18}", text):
            values[name] = int(text)
    return _build(shape, hints, values, "parameter")


def refuse_query(query: Mapping[str, str]) -> None:
    """For a path that takes no parameters. Raises BadRequest."""
    if query:
        names = sorted(set(query))
        raise BadRequest([{"name": name, "message": "this path takes no parameters"} for name in names])


def parse_body(shape: type[T], body: bytes) -> T:
    """Parse a JSON object as ``shape``. Raises BadRequest with all that is wrong."""
    try:
        values = json.loads(body, object_pairs_hook=_object)
    except ValueError as e:  # UnicodeDecodeError is one
        raise BadRequest([{"name": "", "message": f"the body is not JSON: {e}"}]) from e
    except RecursionError as e:
        raise BadRequest([{"name": "", "message": "the body is nested too deeply"}]) from e
    if not isinstance(values, dict):
        raise BadRequest([{"name": "", "message": "the body must be a JSON object"}])
    return _build(shape, hints_of(shape), values, "field")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_twice(name for name, _ in pairs)
    return dict(pairs)


def _refuse_twice(names: Iterable[str]) -> None:
    if twice := sorted(name for name, times in Counter(names).items() if times > 1):
        raise BadRequest([{"name": name, "message": "given more than once"} for name in twice])


def _build(shape: type[T], hints: Mapping[str, Hint], values: Mapping[str, Any], noun: str) -> T:
    problems: list[ParameterProblemShape] = []
    for name in values.keys() - hints.keys():
        problems.append({"name": name, "message": f"unknown {noun}; known: {', '.join(hints)}"})
    for field in dataclasses.fields(shape):
        if field.name in values:
            message = _complaint(hints[field.name], values[field.name])
        else:
            message = "missing" if field.default is dataclasses.MISSING else ""
        if message:
            problems.append({"name": field.name, "message": message})
    if not problems:
        made = shape(**{name: _typed(hints[name], value) for name, value in values.items()})
        made, problems = _with_addresses(made)
        if not problems:
            return made
    raise BadRequest(sorted(problems, key=lambda p: p["name"]))


def _complaint(hint: Hint, value: Any) -> str:
    """Say what is wrong with ``value``, or ""."""
    if value is None and hint.optional:
        return ""
    if issubclass(hint.type, StrEnum):
        choices = [member.value for member in hint.type]
        return "" if value in choices else f"{value!r} must be one of {', '.join(choices)}"
    if type(value) is not hint.type:  # isinstance would accept a bool for an int
        wanted = {int: "an integer", bool: "true or false", str: "text"}[hint.type]
        return f"{value!r} is not {wanted}"
    if isinstance(value, str) and not is_text(value):
        return "is not Unicode text: it has one half of a surrogate pair"
    low = next((m.ge for m in hint.metadata if isinstance(m, Ge)), None)
    high = next((m.le for m in hint.metadata if isinstance(m, Le)), None)
    if (low is not None and value < low) or (high is not None and value > high):
        return f"{value} must be from {low} to {high}"
    return ""


def _typed(hint: Hint, value: Any) -> Any:
    return hint.type(value) if value is not None and issubclass(hint.type, StrEnum) else value


def _with_addresses(made: T) -> tuple[T, list[ParameterProblemShape]]:
    """The same with its addresses as the kernel writes them, and what is wrong with them."""
    problems: list[ParameterProblemShape] = []
    if not isinstance(made, OpenSubflow | Explain):
        return made, problems
    found: dict[str, Any] = {}
    versions = set()
    for name in ("local", "remote"):
        if (text := getattr(made, name, None)) is None:
            continue
        try:
            address = canonical(text)
        except ValueError as e:
            problems.append({"name": name, "message": str(e)})
        else:
            found[name] = str(address)
            versions.add(address.version)
    if isinstance(made, Explain) and not made.cgroup.startswith("/"):
        problems.append({"name": "cgroup", "message": "must start with `/`, the cgroup2 root"})
    if len(versions) > 1:
        problems.append({"name": "remote", "message": "must have the same address family as `local`"})
    return dataclasses.replace(made, **found), problems


def is_text(value: str) -> bool:
    """JSON can write what no encoding can: one half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def canonical(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address of one host; IPv4-mapped is IPv4. Raises ValueError for anything else."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as e:
        raise ValueError(f"{text!r} is not an IP address") from e
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"{text!r} has a zone: leave `%` and the interface out")
        address = address.ipv4_mapped or address
    if address.is_unspecified or address.is_multicast or address == ipaddress.IPv4Address(0xFFFFFFFF):
        raise ValueError(f"{text!r} is not the address of a host")
    return address


def parse_token(text: str) -> int | None:
    """The token written as ``0x…``, as eight hex digits or in decimal; None if the text is not a token.

    Eight characters without prefix are hexadecimal, as ``ss`` and ``ip mptcp`` print tokens; anything
    else is decimal if it can be.
    """
    if not text.isascii() or not text.isalnum():
        return None
    base = 10 if text.isdecimal() and len(text) != 8 else 16
    try:
        token = int(text, base)
    except ValueError:
        return None
    return token if token < 2**32 else None
