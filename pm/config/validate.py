# SPDX-License-Identifier: Apache-2.0
"""Turns a document into a ``Config``, or reports everything that is wrong with it.

This module loads pydantic: the loader imports it when it runs, the service never does.
"""

from __future__ import annotations

import difflib
import json
import pickle
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from pm.config.document import Document, Loc, one_line
from pm.config.misplaced import where_it_belongs
from pm.config.model import Config
from pm.config.option_rules import check_options
from pm.config.schema import Schema, alternatives, describe, items, json_schema, schema_at, variant
from pm.errors import ConfigError, PmError
from pm.notation import parse_listen
from pm.path_managers.answers import in_words
from pm.path_managers.choice import PathManagerChoice, spelled_out, unusable
from pm.path_managers.registry import built_in


def validate(document: Document) -> Config:
    """Validate a document. Raises ConfigError with the document's problems and all others, by line."""
    config = None
    try:
        # From JSON, strict validation accepts a list as a tuple and text as an enumeration, but
        # neither a number as text nor 1 as true.
        config = TypeAdapter(Config).validate_json(json.dumps(_spelled_out(document.data)))
        _check_pickles(document, config)
    except KeyboardInterrupt:
        raise
    except ValidationError as e:
        schema = json_schema()
        errors = e.errors(include_url=False)
        # Refused items are not counted: a list that has some is not reported as too short as well.
        lists = {error["loc"][:-1] for error in errors}
        for error in errors:
            loc = error["loc"]
            if loc not in document.unusable and not (error["type"] == "too_short" and loc in lists):
                # To the user, the name of a path manager is a value, although it is a key in YAML.
                place = loc[:-1] if _is_path_manager(error) else loc
                document.report(place, _message(document, schema, error), document.line_of(loc))
    except BaseException:  # a third party's parameters may do anything while they are made
        if not _blame(document):
            raise
    _check_unique(document, "name", "names must be unique")
    _check_unique(document, "cgroup", "use one policy per cgroup")
    _check_listen(document)
    check_options(document)
    if config is None or document.problems:
        raise ConfigError(sorted(document.problems, key=lambda p: p.line))
    return config


def _spelled_out(data: Any) -> Any:
    """The data with each policy's path manager as a mapping."""
    policies = data.get("policies") if isinstance(data, dict) else None
    if not isinstance(policies, list):
        return data
    spelled = [
        policy | {"path_manager": spelled_out(policy["path_manager"])}
        if isinstance(policy, dict) and "path_manager" in policy
        else policy
        for policy in policies
    ]
    return data | {"policies": spelled}


def _blame(document: Document) -> bool:
    """Report the path managers that raise what is no ValueError; whether there are any."""
    before = len(document.problems)
    for i, policy in enumerate(_policies(document)):
        chosen = spelled_out(policy.get("path_manager"))
        for name, parameters in chosen.items() if isinstance(chosen, dict) else ():
            try:
                TypeAdapter(PathManagerChoice).validate_json(json.dumps({name: parameters}))
            except KeyboardInterrupt:
                raise
            except ValidationError:
                pass  # reported once this one is gone
            except BaseException as e:
                what = f"path manager {name}: its parameters {in_words(e)}"
                remedy = "correct them, or report it to its author"
                document.report(("policies", i, "path_manager", name), f"{what}: {remedy}")
    return len(document.problems) > before


def _check_pickles(document: Document, config: Config) -> None:
    """Report the parameters that the loader's process cannot hand to the service."""
    for i, policy in enumerate(config.policies):
        name = policy.path_manager.name
        try:
            if name not in built_in():
                pickle.loads(pickle.dumps(policy.path_manager))
        except KeyboardInterrupt:
            raise
        except BaseException as e:
            why = str(e) if isinstance(e, PmError) else in_words(e)
            what = f"path manager {name}: its parameters cannot be handed to the service ({one_line(why)})"
            document.report(("policies", i, "path_manager", name), f"{what}: report it to its author")


def _message(document: Document, schema: Schema, error: ErrorDetails) -> str:
    loc, value = error["loc"], error["input"]
    expected = schema_at(schema, loc)
    match error["type"]:
        case "value_error":
            return str(error["ctx"]["error"])
        case "extra_forbidden" if _is_path_manager(error) and (why := unusable().get(str(loc[-1]))):
            return f"path manager `{loc[-1]}` cannot be used: {one_line(why)}"
        case "unexpected_keyword_argument" | "extra_forbidden":
            what = f"path manager `{loc[-1]}`" if _is_path_manager(error) else "key"
            return f"unknown {what}: {_suggest(document, schema, loc, value)}"
        case "too_short":
            return f"must contain at least {items(error['ctx']['min_length'])}"
        case "too_long":
            return f"must contain at most {items(error['ctx']['max_length'])}"
        case "missing":
            return f"is missing: add `{loc[-1]}:` with {describe(expected)}"
    if not expected:
        return error["msg"]  # a third party's parameters may have types that describe() does not know
    if value is None:
        hint = "write `none` for no extra subflows; " if loc[-1:] == ("path_manager",) else ""
        return f"has no value: {hint}it must be {describe(expected)}"
    return f"must be {describe(expected)}, {_found(document, loc, value, expected)}"


def _is_path_manager(error: ErrorDetails) -> bool:
    return error["type"] == "extra_forbidden" and error["loc"][-2:-1] == ("path_manager",)


def _suggest(document: Document, schema: Schema, loc: Loc, value: Any) -> str:
    parent, key = loc[:-1], str(loc[-1])
    known = list((variant(schema_at(schema, parent), "object") or {}).get("properties", {}))
    if not known:
        return f"`{parent[-1]}` takes no parameters: remove this key"
    if not key.isascii() and (bare := " ".join(key.split())) != key:
        return f"it has a character that is not a space, such as U+00A0: write `{bare}`"
    if key == "name" and isinstance(value, str) and value in known:
        return f"the name is the key here: write `path_manager: {{{value}: {{...}}}}`"
    if belongs := where_it_belongs(document, schema, loc):
        return belongs
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"use {alternatives(known)}, or remove it"


def _found(document: Document, loc: Loc, value: Any, expected: Schema) -> str:
    is_list = expected.get("type") == "array"
    if isinstance(value, dict):
        return "not a mapping" + ": start each item with `- `" * is_list
    if isinstance(value, list):
        policies = not loc and any(isinstance(item, dict) and "cgroup" in item for item in value)
        return "not a list" + ": write `policies:` above it, and indent it" * policies
    text = document.sources[loc].text if loc in document.sources else str(value)
    short = text if len(text) <= 60 else text[:57] + "..."
    if isinstance(value, str):
        return f"not the text {short!r}" + f": write `[{short}]`" * is_list
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
                ("policies", i, key),
                f"{value!r} is already used by policies[{before}] on line {line}: {rule}",
            )


def _policies(document: Document) -> Iterable[Mapping[str, Any]]:
    policies = document.data.get("policies") if isinstance(document.data, dict) else None
    return [p if isinstance(p, dict) else {} for p in policies] if isinstance(policies, list) else []


def _check_listen(document: Document) -> None:
    """Refuse to send bearer tokens over a network in clear text."""
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
