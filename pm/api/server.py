# SPDX-License-Identifier: Apache-2.0
"""The HTTP server: one application on a Unix socket, on TCP, or on both."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from pm.api import page, sockets
from pm.api.access import Access
from pm.api.auth import access_middleware
from pm.api.connections import SILENT_S, Unread, answer_in_pieces, end_task, listen, raise_failure
from pm.api.control import ControlPlane
from pm.api.handlers import DRY_RUNS_MAX
from pm.api.inputs import refuse_query
from pm.api.keys import ACCESS, CONTROL, DRY_RUNS, LISTING, OPENAPI, PUBLIC, STREAMS, TIMINGS
from pm.api.listing import Listing
from pm.api.metrics import Timings
from pm.api.openapi import document
from pm.api.problems import Handler, problem_middleware
from pm.api.routes import ROUTES, Route
from pm.api.sse import end_streams
from pm.api.views import encode
from pm.config.model import Api
from pm.errors import PmError
from pm.linux.host.file_watch import Signature, file_changes, signature
from pm.log import get_logger

BODY_LIMIT_BYTES = 64 << 10
SHUTDOWN_TIMEOUT_S = 0.5
FOLLOW_AGAIN_S = 10.0

_log = get_logger()


def create_app(control: ControlPlane, timings: Timings, access: Access) -> web.Application:
    """The application. Over TCP ``access`` says who may ask."""
    app = _create(control, timings, ROUTES, problem_middleware, access_middleware, check_query, catch_up)
    page.add_page(app)
    app[ACCESS] = access
    app[PUBLIC] = page.PUBLIC | _public(ROUTES)
    app[OPENAPI] = encode(document(ROUTES))
    app[STREAMS] = set()
    app[DRY_RUNS] = asyncio.Semaphore(DRY_RUNS_MAX)
    app.on_shutdown.append(end_streams)
    return app


def create_probes_app(control: ControlPlane, timings: Timings) -> web.Application:
    """The application of ``api.probes``: the probes and the metrics, for everybody."""
    probes = [route for route in ROUTES if route.probe]
    app = _create(control, timings, probes, problem_middleware, catch_up)
    app[PUBLIC] = _public(probes)
    return app


def _public(routes: Iterable[Route]) -> frozenset[Handler]:
    return frozenset(route.handler for route in routes if route.public)


# Whoever asks the probes may add parameters of its own: Prometheus does, as it is configured.
_WITHOUT_QUERY = frozenset(route.handler for route in ROUTES if route.query is None and not route.probe)


@web.middleware
async def check_query(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raises BadRequest where a path that takes no parameters is given some: they would change nothing."""
    if request.match_info.handler in _WITHOUT_QUERY:
        refuse_query(request.query)
    return await handler(request)


@web.middleware
async def catch_up(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every answer but the public ones is about what had happened when it was asked for."""
    if request.match_info.handler not in request.app[PUBLIC]:
        await request.app[CONTROL].catch_up()
    return await handler(request)


def _create(
    control: ControlPlane, timings: Timings, routes: Iterable[Route], *middlewares: Middleware
) -> web.Application:
    every = (answer_in_pieces, *middlewares)
    app = web.Application(middlewares=every, client_max_size=BODY_LIMIT_BYTES)
    app[CONTROL] = control
    app[LISTING] = Listing(control)
    app[TIMINGS] = timings
    app.on_response_prepare.append(page.add_headers)
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
        access = await _access(api.tcp.token_file, stack) if api.tcp else Access()
        runner = await _run(create_app(control, timings, access), stack)
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


async def _access(path: str, stack: AsyncExitStack) -> Access:
    """What the token in a file allows. A change of the file is a change of the token."""
    seen = await asyncio.to_thread(signature, Path(path))
    access = Access(await _token_of(path))
    following = asyncio.get_running_loop().create_task(_follow_token(path, seen, access))
    following.add_done_callback(raise_failure)
    stack.push_async_callback(end_task, following)
    return access


async def _follow_token(path: str, seen: Signature, access: Access) -> None:
    """Run forever. A file that is gone or bad changes nothing."""
    while True:
        try:
            async for _ in file_changes(Path(path), seen):
                await _change_token(path, access)
        except OSError as e:  # no inotify instance is left, say
            _log.warning("token_file_not_followed", path=path, error=e.strerror)
            await asyncio.sleep(FOLLOW_AGAIN_S)


async def _change_token(path: str, access: Access) -> None:
    try:
        token = await _token_of(path)
    except PmError as e:
        _log.warning("token_not_changed", error=str(e))
        return
    if access.change_token(token):
        _log.info("token_changed", path=path)


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
