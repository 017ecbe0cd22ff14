# SPDX-License-Identifier: Apache-2.0
"""The published JSON Schema and reference, and their agreement with the loader."""

from __future__ import annotations

import json
from dataclasses import field, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from pm.cli.main import main
from pm.config.load import load_config
from pm.config.reference import reference_markdown
from pm.config.schema import json_schema, schema_at, variant
from pm.errors import ConfigError
from pm.path_managers.registry import built_in

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "config/mptcp-pm.yaml"
EXAMPLES = sorted((ROOT / "config/examples").glob("*.yaml"))
# What JSON Schema sees as the loader does: types, ranges, keys. The rest is beyond it.
BAD_FOR_BOTH = [
    "options",
    "unknown-keys",
    "wrong-types",
    "missing",
    "ranges",
    "path-managers",
    "policies-not-a-list",
]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json_schema(built_in())


def test_the_generated_files_are_up_to_date(schema: dict[str, Any]) -> None:
    """`python -m pm.config.generate` would change nothing."""
    assert json.loads((ROOT / "config/schema.json").read_text()) == schema
    assert (ROOT / "docs/configuration.md").read_text() == reference_markdown(schema)


def test_the_schema_is_valid(schema: dict[str, Any]) -> None:
    """It is a JSON Schema of the dialect it names."""
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", [REFERENCE, *EXAMPLES], ids=lambda p: p.stem)
def test_reference_and_examples_satisfy_the_schema(path: Path, schema: dict[str, Any]) -> None:
    """Editors that use the schema mark nothing in the files that users start from."""
    Draft202012Validator(schema).validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("name", BAD_FOR_BOTH)
def test_the_schema_refuses_what_the_loader_refuses(name: str, schema: dict[str, Any]) -> None:
    """Wrong types, ranges and keys are marked in the editor too."""
    path = ROOT / f"tests/data/config/bad/{name}.yaml"
    assert not Draft202012Validator(schema).is_valid(yaml.safe_load(path.read_text()))
    with pytest.raises(ConfigError):
        load_config(str(path))


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


def with_default(hint: Any, default: Any) -> Any:
    """A third party's path manager with one parameter."""
    parameters = make_dataclass("Parameters", [("it", hint, default)], frozen=True)
    return type("Plugin", (), {"name": "plugin", "summary": "For tests.", "Parameters": parameters})


@pytest.mark.parametrize(
    ("hint", "default", "shown"),
    [
        (Colour, Colour.RED, "red"),
        (tuple[Colour, ...], (Colour.RED, Colour.BLUE), ["red", "blue"]),
        (list[int], field(default_factory=lambda: [1]), [1]),
    ],
)
def test_the_schema_has_defaults_of_third_parties(hint: Any, default: Any, shown: Any) -> None:
    """As they are written in YAML."""
    schema = json.loads(json.dumps(json_schema({"plugin": with_default(hint, default)})))
    place = ("policies", 0, "path_manager", "plugin", "it")
    assert schema_at(schema, place)["default"] == shown


def test_the_schema_leaves_out_what_it_cannot_describe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One such package costs the others nothing."""
    needs = built_in()["program"]  # it has required parameters
    known = {"good": with_default(int, 1), "program": needs, "bad": with_default(Any, print)}
    monkeypatch.setattr("pm.path_managers.choice.usable", lambda: dict(known))
    assert main(["schema"]) == 0
    printed = capsys.readouterr()
    place = ("policies", 0, "path_manager")
    mapping = variant(schema_at(json.loads(printed.out), place), "object") or {}
    assert list(mapping["properties"]) == ["good", "program"]
    assert printed.err == (
        "path manager bad is left out: its parameters cannot be described (raised TypeError: Object of type "
        "builtin_function_or_method is not JSON serializable)\n"
    )


def every_key(schema: dict[str, Any], prefix: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if items := (variant(schema, "array") or {}).get("items"):
        return every_key(items, (*prefix, 0))
    found = []
    for key, value in (variant(schema, "object") or {}).get("properties", {}).items():
        found += [(*prefix, key), *every_key(value, (*prefix, key))]
    return found


def test_every_key_is_described(schema: dict[str, Any]) -> None:
    """Each key, path manager and parameter has its text, hence a row in the reference."""
    keys = every_key(schema)
    assert [key for key in keys if not schema_at(schema, key).get("description")] == []
    assert ("policies", 0, "accept", "from") in keys
    assert ("policies", 0, "path_manager", "ndiffports", "subflows") in keys


def test_the_reference_configuration_has_every_key(schema: dict[str, Any]) -> None:
    """config/mptcp-pm.yaml shows each key in some policy or section."""
    present: set[tuple[str | int, ...]] = set()

    def visit(value: Any, loc: tuple[str | int, ...]) -> None:
        present.add(loc)
        if isinstance(value, dict):
            for key, inner in value.items():
                visit(inner, (*loc, key))
        elif isinstance(value, list):
            for inner in value:
                visit(inner, (*loc, 0))
        elif loc[-1] == "path_manager":
            present.add((*loc, value))

    visit(yaml.safe_load(REFERENCE.read_text()), ())
    assert [key for key in every_key(schema) if key not in present] == []


def test_defaults_are_written_as_in_yaml(schema: dict[str, Any]) -> None:
    """A default duration or size is text with a unit, never a bare number."""
    assert schema_at(schema, ("policies", 0, "start", "after"))["default"] == "0s"
    assert schema_at(schema, ("policies", 0, "start", "after_bytes"))["default"] == "0B"
    assert schema_at(schema, ("addresses", "include"))["default"] == ["*"]
