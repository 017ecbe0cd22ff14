# SPDX-License-Identifier: Apache-2.0
"""Bearer token (RFC 6750) for requests over TCP; the Unix socket is protected by its file mode."""

from __future__ import annotations

import hmac
import socket

from aiohttp import web

from pm.api.connections import trust
from pm.api.keys import TOKEN
from pm.api.problems import Handler, Unauthorised

PUBLIC = frozenset({"/healthz", "/readyz"})


@web.middleware
async def bearer_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raises Unauthorised for a request over TCP without the right token, unless the path is public."""
    connection = request.get_extra_info("socket")
    if (connection is None or connection.family != socket.AF_UNIX) and request.path not in PUBLIC:
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
