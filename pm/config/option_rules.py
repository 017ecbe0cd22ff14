# SPDX-License-Identifier: Apache-2.0
"""Rules about TCP options that involve several places of the document at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pm.config.document import Document, Loc
from pm.config.schema import alternatives
from pm.policies.built_in_options import ALGORITHMS_MAX, BUILT_IN_OPTIONS, PLUGINS_MAX
from pm.policies.tcp_options import Exids, TcpOptions

ROLES = {option.name: option.roles for option in BUILT_IN_OPTIONS}


def check_options(document: Document) -> None:
    """Report options without effect, algorithms without id, plugins that disagree, and ExIDs used twice."""
    root = _mapping(document.data)
    tcp_options = _mapping(root.get("tcp_options"))
    algorithms = tcp_options.get("algorithms", TcpOptions().algorithms)
    _check_ids(document, _mapping(tcp_options.get("algorithms")))
    taken = _check_exids(document, _mapping(tcp_options.get("exids")))
    plugins: dict[str, tuple[Any, Any]] = {}
    policies = root.get("policies")
    for i, policy in enumerate(policies if isinstance(policies, list) else ()):
        options = _mapping(_mapping(policy).get("options"))
        loc: Loc = ("policies", i, "options")
        _check_roles(document, loc, options)
        if isinstance(algorithms, dict):
            for place, name in _algorithms(options, loc):
                if isinstance(name, str) and name not in algorithms:
                    known = ", ".join(f"`{known}`" for known in algorithms)
                    document.report(
                        place,
                        f"`{name}` has no id: use one of {known}, or add it to `tcp_options.algorithms`",
                    )
        found = options.get("plugins")
        for j, plugin in enumerate(found if isinstance(found, list) else ()):
            _check_plugin(document, (*loc, "plugins", j), _mapping(plugin), plugins, taken)


def _check_exids(document: Document, exids: dict[str, Any]) -> dict[int, str]:
    """Owner of each ExID."""
    taken: dict[int, str] = {}
    for name in Exids.__dataclass_fields__:
        exid, place = exids.get(name, getattr(Exids(), name)), f"tcp_options.exids.{name}"
        if isinstance(exid, int) and taken.setdefault(exid, place) != place:
            same = f"ExID {exid} is already used by {taken[exid]}: give each option its own"
            document.report(("tcp_options", "exids", name), same)
    return taken


def _check_roles(document: Document, loc: Loc, options: dict[str, Any]) -> None:
    for name, keys in ROLES.items():
        option = options.get(name)
        if isinstance(option, dict) and all(option.get(key) in (None, False, []) for key in keys):
            document.report((*loc, name), f"has no effect: set {alternatives(keys)}, or remove it")


def _check_ids(document: Document, ids: dict[str, Any]) -> None:
    loc = ("tcp_options", "algorithms")
    names: dict[int, str] = {}
    for name, number in ids.items():
        if not re.fullmatch(r"[a-z0-9_-]{1,15}", name):
            document.report((*loc, name), "is not a valid congestion-control name: use one such as `cubic`")
        if isinstance(number, int) and names.setdefault(number, name) != name:
            document.report(
                (*loc, name), f"id {number} is already used by `{names[number]}`: give each algorithm its own"
            )
    if len(ids) > ALGORITHMS_MAX:
        document.report(loc, f"has {len(ids)} algorithms: use at most {ALGORITHMS_MAX}")


def _check_plugin(
    document: Document,
    loc: Loc,
    plugin: dict[str, Any],
    plugins: dict[str, tuple[Any, Any]],
    taken: dict[int, str],
) -> None:
    name, source, exid = plugin.get("name"), plugin.get("source"), plugin.get("exid")
    if not isinstance(name, str):
        return
    if not plugin.get("send") and not plugin.get("accept"):
        document.report(loc, f"plugin `{name}` has no effect: set `send` or `accept`, or remove it")
    if name in ROLES:
        document.report((*loc, "name"), f"`{name}` is a built-in option: choose another name")
    if plugins.setdefault(name, (source, exid)) != (source, exid):
        document.report(
            (*loc, "name"),
            f"plugin `{name}` has a different source or ExID in another policy: rename one of them",
        )
    elif isinstance(exid, int) and taken.setdefault(exid, f"plugin `{name}`") != f"plugin `{name}`":
        document.report(
            (*loc, "exid"), f"ExID {exid} is already used by {taken[exid]}: give each option its own"
        )
    if len(plugins) > PLUGINS_MAX:
        document.report(loc, f"all policies together can have at most {PLUGINS_MAX} plugins: remove this one")


def _algorithms(options: dict[str, Any], loc: Loc) -> Iterator[tuple[Loc, Any]]:
    chosen = _mapping(options.get("congestion_control"))
    loc = (*loc, "congestion_control")
    yield (*loc, "request"), chosen.get("request")
    accepted = chosen.get("accept")
    for i, name in enumerate(accepted if isinstance(accepted, list) else ()):
        yield (*loc, "accept", i), name


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
