# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import validate

from pm.api.access import Access
from pm.api.inputs import parse_token
from pm.api.metrics import Timings
from pm.api.openapi import document
from pm.api.routes import ROUTES, Route
from pm.api.server import create_app, serve
from pm.api.views import event_view
from pm.config.model import Api, ApiTcp
from pm.errors import Problem
from tests.unit.api.plane import Plane, not_connected
from tests.unit.builders import listener, socket_record

DOCUMENT = document(ROUTES)


def closed(schema: Any) -> Any:
    """The same without room for properties that it does not name."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **inner} if isinstance(inner.get("properties"), dict) else inner


def assert_fits(value: Any, schema: dict[str, Any]) -> None:
    """``value`` is what the document says, to the last property."""
    whole = closed({**schema, "components": DOCUMENT["components"]})
    errors = Draft202012Validator(whole, format_checker=FormatChecker(("ipv4", "ipv6"))).iter_errors(value)
    assert [f"{e.json_path}: {e.message}" for e in errors] == []


def test_document_is_valid_openapi() -> None:
    """openapi-spec-validator has nothing to say, nor has a second reading as plain JSON."""
    validate(json.loads(json.dumps(DOCUMENT)))


def test_every_route_is_registered_and_no_other() -> None:
    """The server serves the table of routes exactly, and the files of the page."""
    routes = create_app(Plane(), Timings(), Access()).router.routes()
    registered = {(r.method, r.resource.canonical) for r in routes if r.resource and r.method != "HEAD"}
    assert registered - {("GET", "/"), ("GET", "/web/{name}")} == {
        (route.method, route.path) for route in ROUTES
    }


def mentioned(schema: Any) -> set[str]:
    """The components that a part of the document leads to."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        for name in set(re.findall(r"#/components/schemas/(\w+)", json.dumps(waiting.pop()))) - found:
            found.add(name)
            waiting.append(DOCUMENT["components"]["schemas"][name])
    return found


def test_answers_may_get_new_fields() -> None:
    """A client that checks answers by this document accepts those of a later version; bodies stay exact."""
    operations = [operation for path in DOCUMENT["paths"].values() for operation in path.values()]
    answers = mentioned([operation["responses"] for operation in operations]) | mentioned(
        {"$ref": "#/components/schemas/Event"}
    )
    bodies = mentioned([operation.get("requestBody") for operation in operations])
    exact = {
        name
        for name, schema in DOCUMENT["components"]["schemas"].items()
        if schema.get("additionalProperties") is False
    }
    assert bodies
    assert not answers & exact
    assert bodies <= exact


def test_operation_names_are_unique() -> None:
    """A generated client has one function per route."""
    names = [route.handler.__name__ for route in ROUTES]
    assert len(names) == len(set(names))


def test_query_parameters_come_from_their_declaration() -> None:
    """Range and default of `limit` are those of SessionQuery."""
    (limit,) = (p for p in DOCUMENT["paths"]["/v1/sessions"]["get"]["parameters"] if p["name"] == "limit")
    assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}


@pytest.mark.parametrize(
    ("component", "name", "good", "bad"),
    [
        ("OpenSubflow", "local", ["10.0.0.1", "::1", None], ["eth0", "10.0.0.0/8", "10.0.0.1:80"]),
        ("Explain", "remote", ["10.0.0.1"], ["", "example.org"]),
        ("SessionDetail", "token", ["0xa0000001"], ["0xa", "a0000001"]),
        ("Sessions", "next", ["0123abcd-17", None], ["x", "-1", "17"]),
    ],
)
def test_what_is_no_plain_text_says_so(component: str, name: str, good: list[Any], bad: list[Any]) -> None:
    """Addresses, tokens and cursors have a format or pattern that a generated client can check."""
    schema = DOCUMENT["components"]["schemas"][component]["properties"][name]
    checker = FormatChecker(("ipv4", "ipv6"))
    validator = Draft202012Validator(schema, format_checker=checker)
    assert [value for value in good if not validator.is_valid(value)] == []
    assert [value for value in bad if validator.is_valid(value)] == []


@pytest.mark.parametrize(
    "text", ["0xa0000001", "a0000001", "2684354561", "1", "0x1", "0XA", "x", "0x123456789"]
)
def test_tokens_are_described_as_they_are_read(text: str) -> None:
    """The pattern of the path's parameter lets through whatever the service takes for a token."""
    (parameter,) = DOCUMENT["paths"]["/v1/sessions/{token}"]["get"]["parameters"]
    fits = Draft202012Validator(parameter["schema"]).is_valid(text)
    assert fits == (parse_token(text) is not None)


def test_cursors_are_parameters() -> None:
    """As `next` is written."""
    parameters = DOCUMENT["paths"]["/v1/sessions"]["get"]["parameters"]
    (cursor,) = (p for p in parameters if p["name"] == "cursor")
    answered = DOCUMENT["components"]["schemas"]["Sessions"]["properties"]["next"]
    assert cursor["schema"]["pattern"] == answered["pattern"]


async def test_event_fits_its_schema() -> None:
    """The data of a server-sent event are those of the component Event."""
    plane = Plane()
    async with plane.events.subscribe() as reader:
        for token in (1, None):
            plane.publish(token=token)
        events = (await reader.read()).events
    assert len(events) == 2
    for event in events:
        assert_fits(event_view(event), {"$ref": "#/components/schemas/Event"})


BODIES: dict[str, Any] = {
    "open_subflow": {"remote": "10.0.2.2"},
    "change_subflow": {"backup": True},
    "explain": {"cgroup": "/a", "remote": "10.0.2.2"},
    "log_in": {"token": "0123456789abcdef"},
}


QUERIES = {"get_socket_report": "?cgroup=/"}


@pytest.mark.parametrize("gone", [False, True], ids=["figures", "no-figures"])
@pytest.mark.parametrize("route", ROUTES, ids=lambda r: r.handler.__name__)
async def test_answers_fit_their_schemas(route: Route, gone: bool, tmp_path: Path) -> None:
    """What every endpoint really answers is what the document says, its status and type too."""
    plane = Plane(gone=gone)
    session = plane.add(1)
    plane.add(2, None)
    plane.paths[7] = "/a"
    plane.sockets += [listener(), socket_record(mptcp=True, token=session.token), socket_record(local_port=2)]
    if route.media_type == "text/event-stream":
        return  # endless: see test_event_fits_its_schema
    name = "eth0" if "interfaces" in route.path else "sync"
    path = route.path.format(name=name, token="0xa0000001", id=session.subflows[1].id)
    path += QUERIES.get(route.handler.__name__, "")
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    unix, token_file = str(tmp_path / "s"), tmp_path / "token"
    token_file.write_text(BODIES["log_in"]["token"])
    tcp = ApiTcp(listen="127.0.0.1:0", token_file=str(token_file))
    async with (
        serve(plane, Api(unix=unix, tcp=tcp), Timings()),
        ClientSession("http://x", connector=UnixConnector(unix)) as client,
        client.request(route.method, path, json=BODIES.get(route.handler.__name__)) as response,
    ):
        text = await response.text()
        described = operation["responses"][str(response.status)]
        assert response.status in route.answers, text
        if "content" in described:
            assert_fits(
                json.loads(text) if response.content_type == "application/json" else text,
                described["content"][response.content_type]["schema"],
            )


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/sessions?limit=x", None),
        ("GET", "/v1/sessions/0", None),
        ("POST", "/v1/sessions/0xa0000001/subflows", {}),
        ("POST", "/v1/sessions/0xa0000001/subflows", {"x": 1}),
        ("POST", "/v1/reload", None),
        ("PUT", "/v1/status", None),
    ],
)
async def test_problems_fit_their_schema(method: str, path: str, body: Any, tmp_path: Path) -> None:
    """Every problem document is a Problem."""
    plane = Plane(bad_config=(Problem("f", 1, "a", "b"),), refusal=not_connected())
    plane.add(1)
    unix = str(tmp_path / "s")
    async with (
        serve(plane, Api(unix=unix), Timings()),
        ClientSession("http://x", connector=UnixConnector(unix)) as client,
        client.request(method, path, json=body) as response,
    ):
        assert response.status >= 400
        assert_fits(json.loads(await response.text()), {"$ref": "#/components/schemas/Problem"})


def test_documentation_has_every_route() -> None:
    """The table of docs/api.md is the table of routes."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()
    documented = re.findall(r"^\| `([A-Z]+) (/\S*)` \|", text, flags=re.M)
    assert sorted(documented) == sorted((route.method, route.path) for route in ROUTES)
