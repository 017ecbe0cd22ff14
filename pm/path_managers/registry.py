# SPDX-License-Identifier: Apache-2.0
"""Finds the installed path managers by their entry points. One that cannot be used costs nobody else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, get_args, get_type_hints

from pm.path_managers.base import PathManager

GROUP = "mptcp_pm.path_managers"
_OURS = "pm.path_managers."


class Identity(NamedTuple):
    """What must be the same where a configuration is validated and where it is used."""

    distribution: str
    version: str
    fields: str
    """Of the parameters: names and types."""


class Installed(NamedTuple):
    """An entry point. ``path_manager`` is None where it cannot be used, for the reason in ``problem``."""

    name: str
    source: str
    """The package that it comes from, with its version, in words."""
    built_in: bool
    path_manager: type[PathManager] | None
    identity: Identity
    problem: str = ""


@cache
def installed() -> tuple[Installed, ...]:
    """Every entry point of the group, loaded once: what is installed later is not seen."""
    return judge(entry_points(group=GROUP))


def registry() -> dict[str, type[PathManager]]:
    """Every path manager that can be used, by name."""
    return {i.name: i.path_manager for i in installed() if i.path_manager}


def built_in() -> dict[str, type[PathManager]]:
    """Those of this package, whatever else is installed."""
    return {i.name: i.path_manager for i in installed() if i.path_manager and i.built_in}


def refused() -> Mapping[str, str]:
    """Why a name cannot be used, by name."""
    return {i.name: f"{i.source}: {i.problem}" for i in installed() if i.problem and not i.built_in}


def identity_of(name: str) -> Identity | None:
    """Of the path manager that is loaded under this name."""
    return next((i.identity for i in installed() if i.name == name and i.path_manager), None)


def judge(points: Iterable[EntryPoint]) -> tuple[Installed, ...]:
    """Load entry points, and refuse those that cannot be used, each with a sentence."""
    found = [_load(point) for point in points]
    ours = {i.name for i in found if i.built_in}
    others = Counter(i.name for i in found if not i.built_in)
    return tuple(_judge_name(i, ours, others, found) for i in found)


def _judge_name(
    one: Installed, ours: Iterable[str], others: Mapping[str, int], found: Iterable[Installed]
) -> Installed:
    problem = one.problem
    if not one.built_in and one.name in ours:
        problem = f"`{one.name}` is a built-in path manager: it needs another name"
    elif not one.built_in and others[one.name] > 1:
        sources = " and ".join(i.source for i in found if i.name == one.name and not i.built_in)
        problem = f"{sources} both have a path manager `{one.name}`: remove one of them"
    return one._replace(problem=problem, path_manager=None) if problem else one


def _load(point: EntryPoint) -> Installed:
    distribution = point.dist.name if point.dist else "?"
    version = point.dist.version if point.dist else "?"
    source, ours = f"{distribution} {version}", point.value.startswith(_OURS)
    try:
        path_manager = point.load()
        problem = _problem_of(point.name, path_manager)
        shape = "" if problem else shape_of(path_manager.Parameters)
    except BaseException as e:  # a third party's module may do anything while it is imported
        words = " ".join(f"{type(e).__name__}: {e}".split())
        problem = f"cannot be loaded from {point.value} ({words}): reinstall or remove the package"
    if problem:
        return Installed(point.name, source, ours, None, Identity(distribution, version, ""), problem)
    return Installed(point.name, source, ours, path_manager, Identity(distribution, version, shape))


def _problem_of(name: str, found: Any) -> str:
    """What is wrong with the thing that an entry point names."""
    if not isinstance(found, type):
        return "its entry point must name a class (docs/path-managers.md)"
    parameters = getattr(found, "Parameters", None)
    if not isinstance(parameters, type) or not is_dataclass(parameters):
        return f"{found.__name__} needs a frozen dataclass `Parameters`"
    if not callable(getattr(found, "wanted", None)):
        return f"{found.__name__} needs a static method `wanted`"
    for attribute in ("name", "summary"):
        if not isinstance(getattr(found, attribute, None), str):
            return f"{found.__name__} needs a text `{attribute}`"
    if found.name != name:  # type: ignore[attr-defined]
        return f"its entry point is `{name}` and its class has the name `{found.name}`: make them the same"  # type: ignore[attr-defined]
    return ""


def shape_of(model: type) -> str:
    """Names and types of the fields of a dataclass, and of those nested in it."""
    shapes: dict[type, str] = {}

    def visit(hint: Any) -> None:
        if isinstance(hint, type) and is_dataclass(hint) and hint not in shapes:
            shapes[hint] = ""
            hints = get_type_hints(hint)
            shapes[hint] = ", ".join(f"{f.name}: {hints[f.name]}" for f in fields(hint))
            for f in fields(hint):
                visit(hints[f.name])
        for argument in get_args(hint):
            visit(argument)

    visit(model)
    return "; ".join(f"{cls.__name__}({shape})" for cls, shape in shapes.items())
