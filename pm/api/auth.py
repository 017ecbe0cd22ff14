# SPDX-License-Identifier: Apache-2.0
"""Bearer token (RFC 6750) for requests over TCP; the Unix socket is protected by its file mode."""

from __future__ import annotations

import hmac
import socket

from aiohttp import web

from pm.api.connections import trust
from pm.api.keys import PUBLIC, TOKEN
from pm.api.problems import Handler, Unauthorised


@web.middleware
async def bearer_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raises Unauthorised for a request over TCP without the right token, unless its handler is public."""
    connection = request.get_extra_info("socket")
    over_tcp = connection is None or connection.family != socket.AF_UNIX
    if over_tcp and request.match_info.handler not in request.app[PUBLIC]:
        _check(request.headers.get("Authorization", ""), request.app[TOKEN])
        trust(request)
    return await handler(request)


def _check(header: str, token: bytes | None) -> None:
    scheme, _, given = header.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorised("a bearer token is required", "send `Authorization: Bearer TOKEN`")
    # surrogateescape: the header need not be UTF-8
    if token is None or not hmac.compare_digest(given.strip().encode(errors="surrogateescape"), token):
        raise Unauthorised("the bearer token is wrong")
