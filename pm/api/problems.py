# SPDX-License-Identifier: Apache-2.0
"""Errors as ``application/problem+json`` (RFC 9457), in one middleware."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from pm.api.problem_shapes import ParameterProblemShape, ProblemShape
from pm.api.views import encode, problem_views
from pm.errors import ConfigError, KernelRefused, LimitReached, NotFound, PmError, SubflowFailed
from pm.log_budget import get_limited_logger

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = get_limited_logger()


class BadRequest(PmError):
    """A query or body that is wrong. It carries everything that is wrong with it."""

    def __init__(self, problems: Sequence[ParameterProblemShape]) -> None:
        self.problems = list(problems)
        super().__init__(
            "; ".join(f"{p['name']}: {p['message']}" if p["name"] else p["message"] for p in problems)
        )


class Expired(PmError):
    """What was given before the service was started again."""


class Unauthorised(PmError):
    """The bearer token is missing or wrong (RFC 6750)."""


class Forbidden(PmError):
    """A page asks for what it may not."""


def problem_of(error: PmError) -> ProblemShape:
    """Turn an error that a user can meet into a problem document."""
    match error:
        case NotFound():
            return _problem("not-found", HTTPStatus.NOT_FOUND, str(error))
        case SubflowFailed():
            return _problem("subflow-failed", HTTPStatus.CONFLICT, str(error))
        case LimitReached():
            return _problem("limit-reached", HTTPStatus.CONFLICT, str(error))
        case KernelRefused():
            problem = _problem("kernel-refused", HTTPStatus.CONFLICT, str(error))
            problem["title"] = "The kernel refused"
            problem["errno"] = error.errno_name
            problem["kernel_message"] = error.reason or os.strerror(error.errno)
            return problem
        case ConfigError():
            problem = _problem("bad-configuration", HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
            problem["title"] = "The configuration cannot be used; the last good one stays in force"
            problem["problems"] = problem_views(error.problems)
            return problem
        case BadRequest():
            problem = _problem("bad-request", HTTPStatus.BAD_REQUEST, str(error))
            problem["problems"] = error.problems
            return problem
        case Expired():
            return _problem("expired", HTTPStatus.GONE, str(error))
        case Unauthorised():
            return _problem("unauthorised", HTTPStatus.UNAUTHORIZED, str(error))
        case Forbidden():
            return _problem("forbidden", HTTPStatus.FORBIDDEN, str(error))
        case _:
            return _problem("service-error", HTTPStatus.INTERNAL_SERVER_ERROR, str(error))


def _problem(kind: str, status: HTTPStatus, detail: str) -> ProblemShape:
    return {
        "type": f"urn:mptcp-pm:problem:{kind}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
    }


def _respond(problem: ProblemShape, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=problem["status"],
        body=encode(problem),
        content_type="application/problem+json",
        headers=headers,
    )


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a problem document. A bug is logged, and the document says nothing about it."""
    try:
        return await handler(request)
    except Unauthorised as e:
        return _respond(problem_of(e), {"WWW-Authenticate": 'Bearer realm="mptcp-pm"'})
    except PmError as e:
        return _respond(problem_of(e))
    except web.HTTPException as e:
        return _respond(_http_problem(request, e), _kept_headers(e))
    except Exception:
        about = request.match_info.handler
        _log.exception("request_failed", about=about, method=request.method, path=request.path)
        detail = "internal error; see the service's log"
        return _respond(_problem("bug", HTTPStatus.INTERNAL_SERVER_ERROR, detail))


def _http_problem(request: web.Request, error: web.HTTPException) -> ProblemShape:
    match error:
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            detail = f"{request.path} accepts {allowed}, not {request.method}"
        case web.HTTPNotFound():
            detail = f"no such path: {request.path}; /openapi.json lists all paths"
        case _:
            detail = error.text or error.reason
    return {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": detail,
    }


def _kept_headers(error: web.HTTPException) -> dict[str, Any]:
    return {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
