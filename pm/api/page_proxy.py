# SPDX-License-Identifier: Apache-2.0
"""The page on a loopback port, for one user: all but its files is asked from the service's Unix socket.

It runs in a process of the user (``mptcp-pm web``), whose rights on the socket are all that it has. Nothing
is asked from the service before a login by the one-time code.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from http import HTTPStatus

from aiohttp import (
    ClientConnectionError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    UnixConnector,
    web,
)
from yarl import URL

from pm.api import page, sockets
from pm.api.access import Logins
from pm.api.auth import READING, check_change, check_origin
from pm.api.connections import SILENT_S, Unread, answer_in_pieces, listen, trust
from pm.api.handlers import CONFIGURATION_BYTES, read_body
from pm.api.inputs import parse_body, refuse_query
from pm.api.login import set_cookie
from pm.api.login_shapes import LoginShape, RedeemCode
from pm.api.one_time_code import OneTimeCode
from pm.api.problems import Forbidden, Handler, Unauthorised, problem_middleware
from pm.api.views import encode
from pm.errors import PmError
from pm.linux.netlink.socket_owner import owner_of_peer
from pm.log_budget import get_limited_logger

LOOPBACK = "127.0.0.1"
CONNECT_S = 5.0
SILENCE_S = 60.0
"""How long the service may say nothing; a stream of events has a comment every 15 s."""
# Of a request, and of an answer: what the page and the API need of each other, and nothing else.
REQUEST_HEADERS = ("Accept", "Content-Type", "Last-Event-ID")
ANSWER_HEADERS = (
    "Allow",
    "Cache-Control",
    "Content-Length",
    "Content-Type",
    "Retry-After",
    "X-Accel-Buffering",
)

_log = get_limited_logger()


class PageProxy:
    """Hands requests of one browser to the service."""

    def __init__(self, socket_path: str, port: int, service: ClientSession) -> None:
        self.code = OneTimeCode()
        self._socket_path = socket_path
        self._service = service
        self._logins = Logins()
        # A browser sends a host's cookies to all of its ports: two of these do not overwrite each other's.
        self._cookie = f"mptcp_pm_{port}"
        self._hosts = {f"{name}:{port}" for name in (LOOPBACK, "localhost")}

    def application(self) -> web.Application:
        app = web.Application(
            middlewares=(answer_in_pieces, problem_middleware, self._guard),
            client_max_size=CONFIGURATION_BYTES,
        )
        app.on_response_prepare.append(page.add_headers)
        page.add_page(app)
        app.router.add_get("/v1/login", self._get_login, allow_head=False)
        app.router.add_post("/v1/login", self._log_in)
        app.router.add_post("/v1/logout", self._log_out)
        app.router.add_route("*", "/{path:.*}", self._forward)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Whatever name leads to this port, and whichever page asks: only our own is answered."""
        if request.headers.getall("Host", []) not in [[host] for host in self._hosts]:
            raise web.HTTPMisdirectedRequest(text="this is not the address that `mptcp-pm web` printed")
        if not request.raw_path.startswith("/"):  # the form for proxies, with a host of its own
            raise web.HTTPBadRequest(text="the request's target must be a path")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in {f"http://{host}" for host in self._hosts}:
            raise Forbidden("the page of another origin may not ask this service")
        if request.match_info.handler not in page.PUBLIC:  # to the page itself any other may lead
            check_origin(request)
        if request.method not in READING:
            check_change(request)
        if request.match_info.handler in (self._get_login, self._log_in, self._log_out):
            refuse_query(request.query)
        return await handler(request)

    def _is_logged_in(self, request: web.Request) -> bool:
        return self._logins.use(request.cookies.get(self._cookie, ""))

    async def _get_login(self, request: web.Request) -> web.Response:
        view: LoginShape = {"required": True, "logged_in": self._is_logged_in(request)}
        return web.Response(body=encode(view), content_type="application/json")

    async def _log_in(self, request: web.Request) -> web.Response:
        wanted = parse_body(RedeemCode, await read_body(request.clone(client_max_size=8 << 10)))
        if wanted.code is None or not self.code.redeem(wanted.code):
            raise Unauthorised(
                "the address that `mptcp-pm web` prints is good for one use within a minute", "run it again"
            )
        self._logins.end(request.cookies.get(self._cookie, ""))
        response = web.Response(status=HTTPStatus.NO_CONTENT)
        set_cookie(request, response, self._cookie, self._logins.begin())
        return response

    async def _log_out(self, request: web.Request) -> web.Response:
        self._logins.end(request.cookies.get(self._cookie, ""))
        response = web.Response(status=HTTPStatus.NO_CONTENT)
        response.del_cookie(self._cookie, path="/", httponly=True, samesite="Strict")
        return response

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        if not self._is_logged_in(request):
            raise Unauthorised("this browser has not logged in, or no longer", "run `mptcp-pm web` again")
        trust(request)
        target = request.rel_url
        url = URL.build(
            scheme="http",
            host="localhost",
            path=target.raw_path,
            query_string=target.raw_query_string,
            encoded=True,
        )
        headers = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
        body = await read_body(request) if request.body_exists else None
        try:
            async with self._service.request(
                request.method, url, headers=headers, data=body, allow_redirects=False
            ) as answer:
                return await self._hand_on(request, answer)
        except (ClientError, TimeoutError) as e:
            raise web.HTTPBadGateway(text=self._why_silent(e)) from e

    async def _hand_on(self, request: web.Request, answer: ClientResponse) -> web.StreamResponse:
        """As the browser reads it; what it leaves unread stays with the service."""
        headers = {name: answer.headers[name] for name in ANSWER_HEADERS if name in answer.headers}
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        try:
            async for chunk in answer.content.iter_any():
                if not self._is_logged_in(request):
                    break
                await response.write(chunk)
            else:
                await response.write_eof()
                return response
        except ConnectionResetError:
            return response
        except (ClientError, TimeoutError):
            pass  # the service has ended: so does the answer, visibly not whole
        if request.transport:
            request.transport.abort()
        return response

    def _why_silent(self, error: Exception) -> str:
        if isinstance(error.__cause__ or error, PermissionError):
            return f"permission denied: {self._socket_path}"
        if isinstance(error, TimeoutError):
            return f"{self._socket_path} did not answer in time"
        if not isinstance(error, ClientConnectionError):
            return f"the server at {self._socket_path} is not mptcp-pm"
        return f"the service is not running: nothing answers at {self._socket_path}"


@asynccontextmanager
async def serve_page(socket_path: str, port: int, users: Collection[int]) -> AsyncIterator[str]:
    """Serve the page to processes of these users while the context lasts; gives the address to open, once.

    ``port`` 0 is any free one. Raises PmError where the port cannot be used.
    """
    bound = sockets.bind_tcp(f"{LOOPBACK}:{port}", "--port")
    port = bound.getsockname()[1]
    async with ClientSession(
        connector=UnixConnector(socket_path, limit=0, force_close=True),
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        timeout=ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
    ) as service:
        proxy = PageProxy(socket_path, port, service)
        runner = web.AppRunner(
            proxy.application(),
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=SILENT_S,
            shutdown_timeout=0.5,
        )
        await runner.setup()
        try:
            async with listen(runner, bound, Unread(), admits=only(users)):
                yield f"http://{LOOPBACK}:{port}/#code={proxy.code.text}"
        finally:
            await runner.cleanup()


def only(users: Collection[int]) -> Callable[[socket.socket], bool]:
    """Whether a connection is of one of these users; all others of this host reach the port too."""

    def admits(connection: socket.socket) -> bool:
        try:
            user = owner_of_peer(connection)
        except PmError as e:
            _log.warning("connection_refused", reason=str(e))
            return False
        if user is not None and user not in users:
            _log.warning("connection_refused", about=user, reason=f"it is of another user ({user})")
        return user in users

    return admits
