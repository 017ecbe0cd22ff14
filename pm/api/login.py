# SPDX-License-Identifier: Apache-2.0
"""``/v1/login``, ``/v1/logout``: a browser sends the token once, and gets a cookie that no script reads."""

from __future__ import annotations

import math
from http import HTTPStatus

from aiohttp import web

from pm.api.auth import COOKIE, check_change, check_origin, is_over_tcp
from pm.api.handlers import read_body
from pm.api.inputs import parse_body
from pm.api.keys import ACCESS
from pm.api.login_shapes import LogIn, LoginShape
from pm.api.problems import Unauthorised
from pm.api.views import encode
from pm.log_budget import get_limited_logger

BODY_BYTES = 8 << 10

_log = get_limited_logger()


async def get_login(request: web.Request) -> web.Response:
    name = request.cookies.get(COOKIE)
    view: LoginShape = {
        "required": is_over_tcp(request),
        "logged_in": name is not None and request.app[ACCESS].logins.use(name),
    }
    return web.Response(body=encode(view), content_type="application/json")


async def log_in(request: web.Request) -> web.Response:
    """204 with a cookie. The name in it is always a new one, whichever the browser had."""
    access, address = request.app[ACCESS], request.remote or ""
    check_origin(request)
    if wait_s := access.failures.wait_s(address):
        raise web.HTTPTooManyRequests(
            text="too many wrong tokens came from this address",
            headers={"Retry-After": f"{math.ceil(wait_s)}"},
        )
    wanted = parse_body(LogIn, await read_body(request.clone(client_max_size=BODY_BYTES)))
    if not access.admits(wanted.token):
        access.failures.add(address)
        _log.warning("login_refused", about=address, address=address)
        raise Unauthorised("the token is wrong")
    _end(request)
    response = web.Response(status=HTTPStatus.NO_CONTENT)
    set_cookie(request, response, COOKIE, access.logins.begin())
    return response


async def log_out(request: web.Request) -> web.Response:
    """204, also for a browser that was not logged in."""
    check_origin(request)
    if COOKIE in request.cookies:
        check_change(request)
    _end(request)
    response = web.Response(status=HTTPStatus.NO_CONTENT)
    response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict", secure=request.secure)
    return response


def _end(request: web.Request) -> None:
    if name := request.cookies.get(COOKIE):
        request.app[ACCESS].logins.end(name)


def set_cookie(request: web.Request, response: web.Response, cookie: str, name: str) -> None:
    """Until the browser ends: no script reads it, and no other site's page makes the browser send it."""
    response.set_cookie(cookie, name, path="/", httponly=True, samesite="Strict", secure=request.secure)
