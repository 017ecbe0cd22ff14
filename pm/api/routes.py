# SPDX-License-Identifier: Apache-2.0
"""Every endpoint in one table: the server registers it, and ``openapi`` describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pm.api import handlers, login, series_handlers
from pm.api.configuration import ConfigurationShape
from pm.api.input_shapes import ChangeSubflow, ConnectionQuery, EventQuery, OpenSubflow, SessionQuery
from pm.api.login_shapes import LogIn, LoginShape
from pm.api.preview_shapes import DryRunShape, Explain, ExplanationShape, Trial
from pm.api.problems import Handler
from pm.api.series_shapes import InterfacesShape, SeriesShape
from pm.api.shapes import (
    AddressesShape,
    ConfigShape,
    HealthShape,
    PoliciesShape,
    PolicyShape,
    ReadinessShape,
    SessionDetailShape,
    SessionsShape,
    StatusShape,
    SubflowShape,
)
from pm.api.sse import stream_events
from pm.api.why_shapes import SocketsShape, WhyShape

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint.

    ``answers`` are the successful statuses, ``errors`` others besides 400, 401, 403, 429 and 500.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    shape: Any = None  # of the response body; None for text or no body
    media_type: str | None = JSON
    answers: tuple[int, ...] = (200,)
    errors: tuple[int, ...] = ()
    query: type | None = None
    body: type | None = None
    public: bool = False  # no token needed
    probe: bool = False  # served by `api.probes` too


ROUTES = (
    Route(
        method="GET",
        path="/v1/status",
        handler=handlers.get_status,
        summary="Datapath, kernel features, configuration in force, last reload, counters and uptime",
        shape=StatusShape,
    ),
    Route(
        method="GET",
        path="/v1/configuration",
        handler=handlers.get_configuration,
        summary="The configuration in force, with the defaults of what was left out",
        shape=ConfigurationShape,
    ),
    Route(
        method="GET",
        path="/v1/policies",
        handler=handlers.list_policies,
        summary="Policies with their parameters, cgroups and numbers of sessions",
        shape=PoliciesShape,
    ),
    Route(
        method="GET",
        path="/v1/policies/{name}",
        handler=handlers.get_policy,
        summary="One policy",
        shape=PolicyShape,
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/v1/policies/{name}/series",
        handler=series_handlers.policy_series,
        summary="Figures of a policy by interface, each second of the last minutes",
        shape=SeriesShape,
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/v1/sessions",
        handler=handlers.list_sessions,
        summary="Sessions with their subflows, oldest first; each is at most one second old",
        shape=SessionsShape,
        query=SessionQuery,
        errors=(410,),
    ),
    Route(
        method="GET",
        path="/v1/sessions/{token}",
        handler=handlers.get_session,
        summary="One session as it is now, with its history",
        shape=SessionDetailShape,
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/v1/sessions/{token}/series",
        handler=series_handlers.session_series,
        summary="Figures of a session's subflows, each second of the last minutes",
        shape=SeriesShape,
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/v1/sessions/{token}/why",
        handler=handlers.get_why,
        summary="Which subflows a session has not, why, and what helps",
        shape=WhyShape,
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/v1/sessions/{token}/subflows",
        handler=handlers.open_subflow,
        summary="Open a subflow by hand: 201 once it is established, 202 if it is not after a second",
        shape=SubflowShape,
        answers=(201, 202),
        body=OpenSubflow,
        errors=(404, 408, 409, 413),
    ),
    Route(
        method="PATCH",
        path="/v1/sessions/{token}/subflows/{id}",
        handler=handlers.change_subflow,
        summary="Set or clear the backup flag of a subflow",
        shape=SubflowShape,
        body=ChangeSubflow,
        errors=(404, 408, 409, 413),
    ),
    Route(
        method="DELETE",
        path="/v1/sessions/{token}/subflows/{id}",
        handler=handlers.close_subflow,
        summary="Close a subflow by hand; the service does not open it again",
        media_type=None,
        answers=(204,),
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path="/v1/why",
        handler=handlers.get_socket_report,
        summary="Why TCP connections are no MPTCP sessions, by address, cgroup or the sockets of a process",
        shape=SocketsShape,
        query=ConnectionQuery,
    ),
    Route(
        method="GET",
        path="/v1/addresses",
        handler=handlers.list_addresses,
        summary="Local addresses, and why each is used or not",
        shape=AddressesShape,
    ),
    Route(
        method="GET",
        path="/v1/interfaces",
        handler=series_handlers.list_interfaces,
        summary="What each interface carries for MPTCP, and whether and why it is used",
        shape=InterfacesShape,
    ),
    Route(
        method="GET",
        path="/v1/interfaces/{name}/series",
        handler=series_handlers.interface_series,
        summary="Figures of an interface, each second of the last minutes",
        shape=SeriesShape,
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/v1/events",
        handler=stream_events,
        summary="Server-sent events; `event: lost` tells a reader that is too slow how many it missed",
        media_type="text/event-stream",
        query=EventQuery,
    ),
    Route(
        method="POST",
        path="/v1/explain",
        handler=handlers.explain,
        summary="Which policy would own a connection, which subflows it would get, and which not and why",
        shape=ExplanationShape,
        body=Explain,
        errors=(408, 409, 413),
    ),
    Route(
        method="POST",
        path="/v1/reload/dry-run",
        handler=handlers.dry_run,
        summary="What a reload of the file, or of the content given, would open and close; nothing changes",
        shape=DryRunShape,
        body=Trial,
        errors=(408, 413, 422, 503),
    ),
    Route(
        method="POST",
        path="/v1/reload",
        handler=handlers.reload,
        summary="Reload the configuration file; a bad file changes nothing",
        shape=ConfigShape,
        errors=(422,),
    ),
    Route(
        method="GET",
        path="/v1/login",
        handler=login.get_login,
        summary="Whether requests need a token or a login, and whether this browser has logged in",
        shape=LoginShape,
        public=True,
    ),
    Route(
        method="POST",
        path="/v1/login",
        handler=login.log_in,
        summary="Log in with the token: the answer sets a cookie, which does in its place from then on",
        media_type=None,
        answers=(204,),
        body=LogIn,
        errors=(401, 403, 408, 413, 429),
        public=True,
    ),
    Route(
        method="POST",
        path="/v1/logout",
        handler=login.log_out,
        summary="End the login of this browser",
        media_type=None,
        answers=(204,),
        errors=(403,),
        public=True,
    ),
    Route(
        method="GET",
        path="/healthz",
        handler=handlers.get_health,
        summary="200 while the service runs",
        shape=HealthShape,
        public=True,
        probe=True,
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=handlers.get_readiness,
        summary="200 once all policies are attached, and while nobody takes that back; otherwise 503",
        shape=ReadinessShape,
        answers=(200, 503),
        public=True,
        probe=True,
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=handlers.get_metrics,
        summary="Prometheus metrics",
        media_type="text/plain",
        probe=True,
    ),
    Route(
        method="GET",
        path="/openapi.json",
        handler=handlers.get_openapi,
        summary="This document",
        shape=dict[str, Any],
    ),
)
