# SPDX-License-Identifier: Apache-2.0
"""``/v1/login``, ``/v1/logout``: a browser sends the token once, and gets a cookie that no script reads."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from pm.api.auth import check_change, check_origin, check_token, cookie_name, cookie_of, is_over_tcp
from pm.api.handlers import read_body
from pm.api.inputs import parse_body
from pm.api.keys import ACCESS
from pm.api.login_shapes import LogIn, LoginShape
from pm.api.views import encode

BODY_BYTES = 8 << 10


async def get_login(request: web.Request) -> web.Response:
    name = cookie_of(request)
    view: LoginShape = {
        "required": is_over_tcp(request),
        "logged_in": name is not None and request.app[ACCESS].logins.use(name),
    }
    return web.Response(body=encode(view), content_type="application/json")


async def log_in(request: web.Request) -> web.Response:
    """204 with a cookie. The name in it is always a new one, whichever the browser had."""
    check_origin(request)
    wanted = parse_body(LogIn, await read_body(request.clone(client_max_size=BODY_BYTES)))
    check_token(wanted.token, request)
    _end(request)
    response = web.Response(status=HTTPStatus.NO_CONTENT)
    set_cookie(request, response, cookie_name(request), request.app[ACCESS].logins.begin())
    return response


async def log_out(request: web.Request) -> web.Response:
    """204, also for a browser that was not logged in."""
    check_origin(request)
    if cookie_of(request) is not None:
        check_change(request)
    _end(request)
    response = web.Response(status=HTTPStatus.NO_CONTENT)
    name = cookie_name(request)
    response.del_cookie(name, path="/", httponly=True, samesite="Strict", secure=request.secure)
    return response


def _end(request: web.Request) -> None:
    if name := cookie_of(request):
        request.app[ACCESS].logins.end(name)


def set_cookie(request: web.Request, response: web.Response, cookie: str, name: str) -> None:
    """Until the browser ends: no script reads it, and no other site's page makes the browser send it."""
    response.set_cookie(cookie, name, path="/", httponly=True, samesite="Strict", secure=request.secure)
