# SPDX-License-Identifier: Apache-2.0
"""The HTTP server: one application on a Unix socket, on TCP, or on both."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from pm.api import sockets
from pm.api.auth import bearer_middleware
from pm.api.connections import SILENT_S, Unread, answer_in_pieces, listen
from pm.api.control import ControlPlane
from pm.api.handlers import DRY_RUNS_MAX
from pm.api.interface_census import InterfaceCensus
from pm.api.keys import CONTROL, DRY_RUNS, INTERFACES, LISTING, OPENAPI, STREAMS, TIMINGS, TOKEN
from pm.api.listing import Listing
from pm.api.metrics import Timings
from pm.api.openapi import document
from pm.api.problems import problem_middleware
from pm.api.routes import ROUTES, Route
from pm.api.sse import end_streams
from pm.api.views import encode
from pm.config.model import Api
from pm.log import get_logger

BODY_LIMIT_BYTES = 64 << 10
SHUTDOWN_TIMEOUT_S = 0.5

_log = get_logger()


def create_app(control: ControlPlane, timings: Timings, token: bytes | None = None) -> web.Application:
    """The application. Without ``token``, every request over TCP except the probes is refused."""
    app = _create(control, timings, ROUTES, problem_middleware, bearer_middleware)
    app[TOKEN] = token
    app[OPENAPI] = encode(document(ROUTES))
    app[STREAMS] = set()
    app[DRY_RUNS] = asyncio.Semaphore(DRY_RUNS_MAX)
    app.on_shutdown.append(end_streams)
    return app


def create_probes_app(control: ControlPlane, timings: Timings) -> web.Application:
    """The application of ``api.probes``: the probes and the metrics, for everybody."""
    return _create(control, timings, [route for route in ROUTES if route.probe], problem_middleware)


def _create(
    control: ControlPlane, timings: Timings, routes: Iterable[Route], *middlewares: Middleware
) -> web.Application:
    every = (answer_in_pieces, *middlewares)
    app = web.Application(middlewares=every, client_max_size=BODY_LIMIT_BYTES)
    app[CONTROL] = control
    app[INTERFACES] = InterfaceCensus(control)
    app[LISTING] = Listing(control)
    app[TIMINGS] = timings
    for route in routes:
        app.router.add_route(route.method, route.path, route.handler)
    return app


@asynccontextmanager
async def serve(control: ControlPlane, api: Api, timings: Timings) -> AsyncIterator[Sequence[Any]]:
    """Serve ``api`` while the context lasts; gives the bound addresses as ``getsockname()`` returns them.

    Raises PmError if a socket, the token file or the certificate cannot be used.
    """
    unread = Unread()
    async with AsyncExitStack() as stack:
        token = await _token_of(api.tcp.token_file) if api.tcp else None
        runner = await _run(create_app(control, timings, token), stack)
        addresses = []
        if api.unix:
            addresses.append(await _listen_unix(runner, api.unix, unread, stack))
        if api.tcp:
            context = await asyncio.to_thread(sockets.tls_context, api.tcp.tls) if api.tcp.tls else None
            addresses.append(
                await _listen_tcp(runner, api.tcp.listen, "api.tcp.listen", unread, stack, context)
            )
        if api.probes:
            probes = await _run(create_probes_app(control, timings), stack)
            addresses.append(await _listen_tcp(probes, api.probes.listen, "api.probes.listen", unread, stack))
        _log.info("api_listening", addresses=[_address_text(address) for address in addresses])
        yield addresses


async def _token_of(path: str) -> bytes:
    file = await asyncio.to_thread(sockets.read_token, path)
    if file.remedy:
        _log.warning("token_file_readable_by_others", path=path, remedy=file.remedy)
    return file.token


async def _run(app: web.Application, stack: AsyncExitStack) -> web.AppRunner:
    # No access log: one line for each request of a monitoring system helps nobody.
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S, keepalive_timeout=SILENT_S
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner


def _address_text(address: Any) -> str:
    """An address from ``getsockname()`` as text: a path, or host and port."""
    if isinstance(address, str):
        return address
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _listen_unix(runner: web.AppRunner, path: str, unread: Unread, stack: AsyncExitStack) -> Any:
    bound = await asyncio.to_thread(sockets.bind_unix, path)
    inode = (await asyncio.to_thread(os.stat, path)).st_ino
    stack.push_async_callback(asyncio.to_thread, sockets.unlink_unix, path, inode)
    await stack.enter_async_context(listen(runner, bound, unread))
    return bound.getsockname()


async def _listen_tcp(
    runner: web.AppRunner,
    where: str,
    key: str,
    unread: Unread,
    stack: AsyncExitStack,
    context: ssl.SSLContext | None = None,
) -> Any:
    """``key`` is the configuration's key for ``where``."""
    bound = sockets.bind_tcp(where, key)
    await stack.enter_async_context(listen(runner, bound, unread, context))
    return bound.getsockname()
