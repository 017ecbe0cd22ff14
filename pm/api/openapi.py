# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI 3.1 document, made from the route table and the shapes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pm import __version__
from pm.api.auth import CHANGE_HEADER, COOKIE, READING
from pm.api.problem_shapes import ProblemShape
from pm.api.routes import Route
from pm.api.schemas import TOKEN_INPUT, Schema, schema_of
from pm.api.shapes import EventShape

_PARAMETERS = {
    "token": "Token of the session: `0x` and hex digits, eight hex digits, or a decimal number.",
    "id": "`id` of the subflow.",
    "name": "Name of the policy.",
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1.0 document of these routes."""
    components: dict[str, Schema] = {}
    schema_of(EventShape, components)  # it is sent inside the event stream: no route answers with it
    problem = schema_of(ProblemShape, components)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, problem, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mptcp-pm",
            "version": __version__,
            "description": "A per-cgroup path manager for Multipath TCP. Times are RFC 3339 in UTC, "
            "durations are in seconds, sizes in bytes; errors are problem documents (RFC 9457). Answers may "
            "get new fields: clients skip those that they do not know.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {"login": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Needed over TCP only; the Unix socket is protected by its file mode.",
                },
                "login": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": COOKIE,
                    "description": "Set by `POST /v1/login`, for browsers; PORT is the service's. Requests "
                    "that change anything "
                    f"need the header `{CHANGE_HEADER}: 1` too.",
                },
            },
        },
    }


def _operation(route: Route, problem: Schema, components: dict[str, Schema]) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": route.handler.__name__, "summary": route.summary}
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string"} | (TOKEN_INPUT.schema() if name == "token" else {}),
            "description": _PARAMETERS[name],
        }
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    if route.query:
        parameters += _query_parameters(route.query)
    if parameters:
        operation["parameters"] = parameters
    if route.body:
        content = {"application/json": {"schema": schema_of(route.body, components)}}
        operation["requestBody"] = {"required": True, "content": content}
    if route.public:
        operation["security"] = []
    responses: dict[str, Any] = {}
    refusals = () if route.public else (401, 429) if route.method in READING else (401, 403, 429)
    for status in route.answers:
        responses[str(status)] = {"description": HTTPStatus(status).phrase}
        if route.media_type:
            schema = schema_of(route.shape, components) if route.shape else {"type": "string"}
            responses[str(status)]["content"] = {route.media_type: {"schema": schema}}
    mistakes = set() if route.probe else {400}
    for status in sorted({*mistakes, *route.errors, *refusals, 500}):
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": problem}},
        }
    operation["responses"] = responses
    return operation


def _query_parameters(shape: type) -> list[dict[str, Any]]:
    own: dict[str, Schema] = {}
    schema_of(shape, own)
    properties = own[shape.__name__]["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "description": schema.get("description", ""),
            "schema": {key: value for key, value in schema.items() if key != "description"},
        }
        for name, schema in properties.items()
    ]
