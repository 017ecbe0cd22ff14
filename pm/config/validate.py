# SPDX-License-Identifier: GPL-2.0-only
"""A document as a ``Config``, or every reason why it is none, in words a user can act on.

Loads pydantic: imported by the loader when it runs, never by the service.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from pm.config.document import Document, Loc
from pm.config.model import Config
from pm.config.option_rules import check_options
from pm.config.schema import Schema, alternatives, describe, json_schema, schema_at, variant
from pm.errors import ConfigError
from pm.notation import parse_listen


def validate(document: Document) -> Config:
    """Raises ConfigError with the document's own problems and all others, in the order of lines."""
    config = None
    try:
        # As JSON, strict validation takes a list for a tuple and text for an enumeration, but no
        # number for text, nor 1 for true.
        config = TypeAdapter(Config).validate_json(json.dumps(document.data))
    except ValidationError as e:
        schema = json_schema()
        errors = e.errors(include_url=False)
        # Items that are refused do not count: where there are some, a list is not too short as well.
        lists = {error["loc"][:-1] for error in errors}
        for error in errors:
            loc = error["loc"]
            if loc not in document.unusable and not (error["type"] == "too_short" and loc in lists):
                # The name of a path manager is a value to the user, though a key in YAML.
                place = loc[:-1] if _is_path_manager(error) else loc
                document.report(place, _message(document, schema, error), document.line_of(loc))
    _check_unique(document, "name", "names must be unique")
    _check_unique(document, "cgroup", "one policy per cgroup")
    _check_listen(document)
    check_options(document)
    if config is None or document.problems:
        raise ConfigError(sorted(document.problems, key=lambda p: p.line))
    return config


def _message(document: Document, schema: Schema, error: ErrorDetails) -> str:
    loc, value = error["loc"], error["input"]
    expected = schema_at(schema, loc)
    match error["type"]:
        case "value_error":
            return str(error["ctx"]["error"])
        case "unexpected_keyword_argument" | "extra_forbidden":
            what = f"path manager `{loc[-1]}`" if _is_path_manager(error) else "key"
            return f"unknown {what}: {_suggest(schema, loc)}"
        case "missing":
            return f"is missing: add `{loc[-1]}:` with {describe(expected)}"
    if not expected:
        return error["msg"]  # a third party's parameters may have types that describe() knows nothing of
    if value is None:
        remedy = "write `none` for no extra subflows" if loc[-1:] == ("path_manager",) else "give it a value"
        return f"is empty: {remedy}; it must be {describe(expected)}"
    return f"must be {describe(expected)}, {_found(document, loc, value, expected)}"


def _is_path_manager(error: ErrorDetails) -> bool:
    return error["type"] == "extra_forbidden" and error["loc"][-2:-1] == ("path_manager",)


def _suggest(schema: Schema, loc: Loc) -> str:
    parent, key = loc[:-1], str(loc[-1])
    known = list((variant(schema_at(schema, parent), "object") or {}).get("properties", {}))
    if not known:
        return f"`{parent[-1]}` has no parameters, remove it"
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"use {alternatives(known)}, or remove it"


def _found(document: Document, loc: Loc, value: Any, expected: Schema) -> str:
    if isinstance(value, list) and expected.get("type") == "array":
        return f"not of {len(value)}"
    if isinstance(value, dict | list):
        return f"not a {'mapping' if isinstance(value, dict) else 'list'}"
    text = document.sources[loc].text if loc in document.sources else str(value)
    short = text if len(text) <= 60 else text[:57] + "..."
    if isinstance(value, str):
        return f"not the text {short!r}"
    # `name: no` is false to YAML.
    meant_as_text = expected.get("type") == "string" and re.search(expected.get("pattern", ""), text)
    return f"not {short}: put it in quotes" if meant_as_text else f"not {short}"


def _check_unique(document: Document, key: str, rule: str) -> None:
    first: dict[str, int] = {}
    for i, policy in enumerate(_policies(document)):
        value = policy.get(key)
        if isinstance(value, str) and first.setdefault(value, i) != i:
            before = first[value]
            line = document.line_of(("policies", before, key))
            document.report(
                ("policies", i, key), f"policies[{before}] in line {line} has {value!r} too: {rule}"
            )


def _policies(document: Document) -> Iterable[Mapping[str, Any]]:
    policies = document.data.get("policies") if isinstance(document.data, dict) else None
    return [p if isinstance(p, dict) else {} for p in policies] if isinstance(policies, list) else []


def _check_listen(document: Document) -> None:
    """Bearer tokens are not sent in the clear over a network."""
    tcp: Any = document.data
    for key in ("api", "tcp"):
        tcp = tcp.get(key) if isinstance(tcp, dict) else None
    if not isinstance(tcp, dict) or tcp.get("tls") is not None or not isinstance(tcp.get("listen"), str):
        return
    try:
        address, port = parse_listen(tcp["listen"])
    except ValueError:
        return  # reported as such
    if not address.is_loopback:
        document.report(
            ("api", "tcp", "listen"),
            f"{address} can be reached from other hosts: add `tls: {{cert: FILE, key: FILE}}`, "
            f"or listen on `127.0.0.1:{port}`",
        )
