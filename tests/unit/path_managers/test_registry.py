# SPDX-License-Identifier: Apache-2.0
"""Which of the installed path managers can be used, and what is said about the others."""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass, make_dataclass
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest

from pm.errors import PmError
from pm.path_managers import choice, registry
from pm.path_managers.choice import PathManagerChoice
from pm.path_managers.fullmesh import FullMesh
from pm.path_managers.registry import GROUP, Identity, built_in, judge, shape_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    interfaces: int = 2


def path_manager(name: str, **attributes: Any) -> type:
    usual = {"name": name, "summary": "", "Parameters": Parameters, "wanted": staticmethod(lambda *_: {})}
    return type("Mine", (), usual | attributes)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType("third_party")
    monkeypatch.setitem(sys.modules, "third_party", made)
    return made


def point(name: str, attribute: str = "Mine", module: str = "third_party") -> EntryPoint:
    return EntryPoint(name, f"{module}:{attribute}", GROUP)


def problems(*points: EntryPoint) -> list[str]:
    return [found.problem for found in judge(points)]


def test_one_that_is_as_it_should_be(module: ModuleType) -> None:
    """It is loaded, and not built in."""
    module.Mine = path_manager("mine")  # type: ignore[attr-defined]
    (found,) = judge([point("mine")])
    assert (found.path_manager, found.problem, found.built_in) == (module.Mine, "", False)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (len, "its entry point must name a class"),
        (path_manager("mine", Parameters=None), "Mine needs a frozen dataclass `Parameters`"),
        (path_manager("mine", wanted=None), "Mine needs a static method `wanted`"),
        (path_manager("mine", summary=None), "Mine needs a text `summary`"),
        (path_manager("one"), "its entry point is `mine` and its class has the name `one`"),
        (
            path_manager("mine", Parameters=make_dataclass("P", [("x", "NoSuchType")])),
            "(NameError: name 'NoSuchType' is not defined): reinstall or remove the package",
        ),
    ],
)
def test_those_that_are_not(module: ModuleType, found: Any, problem: str) -> None:
    """Each has its sentence."""
    module.Mine = found  # type: ignore[attr-defined]
    (said,) = problems(point("mine"))
    assert problem in said


def test_those_that_cannot_be_loaded(module: ModuleType) -> None:
    """No such module, no such class: the others are not affected."""
    module.Mine = path_manager("mine")  # type: ignore[attr-defined]
    absent, nameless, good = problems(point("a", module="no_such"), point("b", "Nothing"), point("mine"))
    assert "cannot be loaded from no_such:Mine (ModuleNotFoundError: No module named 'no_such')" in absent
    assert "cannot be loaded from third_party:Nothing (AttributeError" in nameless
    assert good == ""


def test_names_are_used_once(module: ModuleType) -> None:
    """Nobody replaces a built-in one, and of two with one name neither is taken."""
    module.Mine, module.Mesh = path_manager("mine"), path_manager("fullmesh")  # type: ignore[attr-defined]
    ours = EntryPoint("fullmesh", "pm.path_managers.fullmesh:FullMesh", GROUP)
    found = judge([point("mine"), point("mine"), point("fullmesh", "Mesh"), ours])
    taken: list[object] = [i.path_manager for i in found]
    assert taken == [None, None, None, FullMesh]
    assert "both have a path manager `mine`: remove one of them" in found[0].problem
    assert "`fullmesh` is a built-in path manager: it needs another name" in found[2].problem


def test_shape_has_nested_fields() -> None:
    """Other names, types or nested ones are another shape; docstrings and defaults are not."""
    inner = make_dataclass("Inner", [("a", int)])
    other = make_dataclass("Inner", [("b", int)])
    first, same, second = (
        shape_of(make_dataclass("P", [("x", tuple[kind, ...])]))  # type: ignore[valid-type]
        for kind in (inner, inner, other)
    )
    assert first == same
    assert first != second


def test_choice_travels_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is pickled in one process is made again in another only where the same is loaded."""
    chosen = PathManagerChoice("fullmesh", FullMesh.Parameters(max_subflows=3))
    data = pickle.dumps(chosen)
    assert pickle.loads(data) == chosen
    there = registry.identity_of("fullmesh")
    assert there
    for here, message in (
        (None, "`fullmesh` was installed after the service started"),
        (there._replace(version="9"), f"has changed from {there.distribution} 9 to"),
        (there._replace(fields="x"), "has other parameters now than"),
    ):
        monkeypatch.setattr(choice, "identity_of", lambda name, here=here: here)
        with pytest.raises(PmError, match=message) as refused:
            pickle.loads(data)
        assert refused.value.remedy == "restart the service"


def test_built_in_ones_are_those_of_this_package() -> None:
    """Whatever else is installed."""
    assert set(built_in()) == {"none", "endpoints", "ndiffports", "fullmesh", "backup", "program"}
    assert isinstance(registry.identity_of("none"), Identity)
