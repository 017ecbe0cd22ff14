# SPDX-License-Identifier: Apache-2.0
"""Who may ask. Over TCP: a bearer token (RFC 6750) or the cookie of a login; the Unix socket has its mode."""

from __future__ import annotations

import math
import re
import socket

from aiohttp import web

from pm.api.connections import trust
from pm.api.keys import ACCESS, PUBLIC
from pm.api.problems import Forbidden, Handler, Unauthorised
from pm.log_budget import get_limited_logger

COOKIE = "mptcp_pm_PORT"
"""A browser sends the cookies of a host to all its ports: each service has a name of its own."""
CHANGE_HEADER = "X-Mptcp-Pm"
"""A browser sends it to another origin only where that one allows it, which this service never does."""
READING = ("GET", "HEAD")

_log = get_limited_logger()


def is_over_tcp(request: web.Request) -> bool:
    connection = request.get_extra_info("socket")
    return connection is None or connection.family != socket.AF_UNIX


@web.middleware
async def access_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raises Unauthorised or Forbidden over TCP, unless the handler is public."""
    if is_over_tcp(request) and request.match_info.handler not in request.app[PUBLIC]:
        if header := request.headers.get("Authorization"):
            _check_header(header, request)
        else:
            _check_cookie(request)
        trust(request)
    return await handler(request)


def _check_header(header: str, request: web.Request) -> None:
    scheme, _, given = header.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorised("a bearer token is required", "send `Authorization: Bearer TOKEN`")
    check_token(given, request)


def check_token(given: str, request: web.Request) -> None:
    """Raises Unauthorised, or HTTPTooManyRequests where too many wrong ones came from this address."""
    access, address = request.app[ACCESS], request.remote or ""
    if wait_s := access.trials.wait_s(address):
        raise web.HTTPTooManyRequests(
            text="too many wrong tokens came from this address",
            headers={"Retry-After": f"{math.ceil(wait_s)}"},
        )
    if not access.admits(given, address):
        _log.warning("token_refused", about=address, address=address)
        raise Unauthorised("the token is wrong")


def cookie_name(request: web.Request) -> str:
    """With the port that the browser asks, a tunnel's say; the service's own where a proxy leaves it out."""
    if asked := re.search(r":([0-9]{1,5})$", request.host, re.ASCII):
        return COOKIE.replace("PORT", asked[1])
    _, port, *_ = request.get_extra_info("sockname") or ("", 0)
    return COOKIE.replace("PORT", str(port))


def cookie_of(request: web.Request) -> str | None:
    return request.cookies.get(cookie_name(request)) if is_over_tcp(request) else None


def _check_cookie(request: web.Request) -> None:
    name = cookie_of(request)
    if name is None:
        raise Unauthorised("a bearer token is required", "send `Authorization: Bearer TOKEN`, or log in")
    if not request.app[ACCESS].logins.use(name):
        raise Unauthorised("this login has ended", "log in again")
    check_origin(request)
    if request.method not in READING:
        check_change(request)


def check_origin(request: web.Request) -> None:
    """Raises Forbidden where the browser says that the page of another origin asks.

    ``same-site`` is such a page too: every port of a host is one site.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise Forbidden("the page of another origin may not ask this service")


def check_change(request: web.Request) -> None:
    """Raises Forbidden for a request that a form of any page could have sent."""
    if request.headers.get(CHANGE_HEADER) != "1":
        raise Forbidden(f"a change by cookie needs the header `{CHANGE_HEADER}: 1`")


def may_still_ask(request: web.Request) -> bool:
    """For an answer that does not end: whether its token is still right, or its login open (it is in use)."""
    if not is_over_tcp(request):
        return True
    if header := request.headers.get("Authorization"):
        return request.app[ACCESS].is_token(header.partition(" ")[2])
    return request.app[ACCESS].logins.use(cookie_of(request) or "")
