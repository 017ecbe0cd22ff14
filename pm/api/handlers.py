# SPDX-License-Identifier: Apache-2.0
"""One function per endpoint: it finds what was asked for and answers with a view of it.

Errors are raised; ``problems`` turns them into documents.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from aiohttp import web

from pm.api import metrics
from pm.api.configuration import configuration_view
from pm.api.control import ControlPlane
from pm.api.input_shapes import ChangeSubflow, ConnectionQuery, OpenSubflow, SessionQuery
from pm.api.inputs import parse_body, parse_query, parse_token
from pm.api.keys import CONTROL, DRY_RUNS, LISTING, OPENAPI, TIMINGS
from pm.api.preview_shapes import Explain, Trial
from pm.api.preview_views import dry_run_view, explanation_view
from pm.api.problems import BadRequest
from pm.api.socket_query import wanted_sockets
from pm.api.views import (
    address_view,
    encode,
    path_manager_of,
    policy_view,
    readiness_view,
    session_detail_view,
    status_view,
    subflow_view,
)
from pm.api.why_views import missing_view, sockets_view, why_view
from pm.clock import moment
from pm.errors import NotFound, SubflowFailed
from pm.linux.host.counters import read_counters
from pm.model import Subflow, token_text
from pm.sessions.session import Session

ESTABLISHED_WAIT_S = 1.0

BODY_TIMEOUT_S = 10.0
DRY_RUNS_MAX = 4
"""At once: each has a process of its own."""
CONFIGURATION_BYTES = 2 << 20
"""A configuration (1 MiB at most) as a string of JSON."""


async def get_status(request: web.Request) -> web.Response:
    control = request.app[CONTROL]
    return json_answer(status_view(control.status(), control.option_counters(), moment(time)))


async def get_configuration(request: web.Request) -> web.Response:
    return json_answer(configuration_view(request.app[CONTROL].configuration()))


async def list_policies(request: web.Request) -> web.Response:
    control = request.app[CONTROL]
    attached, counts = control.attached(), await _sessions_by_policy(request)
    views = [policy_view(policy, attached, counts[policy.name]) for policy in control.policies()]
    return json_answer({"policies": views})


async def get_policy(request: web.Request) -> web.Response:
    control, name = request.app[CONTROL], request.match_info["name"]
    for policy in control.policies():
        if policy.name == name:
            counts = await _sessions_by_policy(request)
            return json_answer(policy_view(policy, control.attached(), counts[name]))
    raise NotFound(f"no policy {name!r}")


async def list_sessions(request: web.Request) -> web.Response:
    query = parse_query(SessionQuery, request.query)
    return _bytes_answer(await request.app[LISTING].page(query))


async def get_session(request: web.Request) -> web.Response:
    control = request.app[CONTROL]
    session = session_of(request)
    reports = await control.option_reports(session)
    figures = control.stats([session])[0]
    options = [
        (subflow.id, report)
        for subflow, of_subflow in zip(session.subflows, figures, strict=False)
        if of_subflow
        for report in reports.get(of_subflow.cookie, ())
    ]
    cgroup, program = control.cgroup_path(session), control.program_of(session)
    missing = [missing_view(pair) for pair in await control.missing(session)]
    now = moment(time)
    return json_answer(session_detail_view(session, cgroup, program, figures, options, missing, now))


async def get_why(request: web.Request) -> web.Response:
    text = request.match_info["token"]
    if (token := parse_token(text)) is None:
        raise _no_session(text)
    return json_answer(why_view(await request.app[CONTROL].why(token)))


async def get_socket_report(request: web.Request) -> web.Response:
    control = request.app[CONTROL]
    query = parse_query(ConnectionQuery, request.query)
    wanted = wanted_sockets(query, control.cgroup_of_socket)
    return json_answer(sockets_view(await control.look_at_sockets(wanted)))


async def open_subflow(request: web.Request) -> web.Response:
    """201 once it is established: its id has the local port, told by the kernel then. 202 after a second."""
    control, session = request.app[CONTROL], session_of(request)
    wanted = parse_body(OpenSubflow, await read_body(request))
    local, remote = wanted.local or session.local, wanted.remote or session.remote
    if (":" in local) != (":" in remote):
        name = "local" if wanted.local else "remote"
        raise BadRequest([{"name": name, "message": f"{local} and {remote} are of two address families"}])
    async with control.subscribe() as events:
        subflow = control.open_subflow(
            session.token,
            local,
            remote,
            wanted.remote_port or session.remote_port,
            wanted.backup,
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(ESTABLISHED_WAIT_S):
                while not subflow.local_port and subflow in session.subflows:
                    await events.read()
    if subflow not in session.subflows:
        raise SubflowFailed(
            f"{subflow.pair} was not established", f"see the events of {token_text(session.token)}"
        )
    status = HTTPStatus.CREATED if subflow.local_port else HTTPStatus.ACCEPTED
    return json_answer(_subflow_document(control, session, subflow), status)


async def close_subflow(request: web.Request) -> web.Response:
    session, subflow = session_of(request), request.match_info["id"]
    request.app[CONTROL].close_subflow(session.token, subflow)
    return web.Response(status=HTTPStatus.NO_CONTENT)


async def change_subflow(request: web.Request) -> web.Response:
    control, session, subflow_id = request.app[CONTROL], session_of(request), request.match_info["id"]
    change = parse_body(ChangeSubflow, await read_body(request))
    control.set_backup(session.token, subflow_id, change.backup)
    for subflow in session.subflows:
        if subflow.id == subflow_id:
            return json_answer(_subflow_document(control, session, subflow))
    raise NotFound(f"subflow {subflow_id} of session {token_text(session.token)} has closed")


async def list_addresses(request: web.Request) -> web.Response:
    return json_answer({"addresses": [address_view(address) for address in request.app[CONTROL].addresses()]})


async def explain(request: web.Request) -> web.Response:
    asked = parse_body(Explain, await read_body(request))
    found = request.app[CONTROL].explain(asked.cgroup, asked.remote, asked.remote_port)
    return json_answer(explanation_view(asked.cgroup, found))


async def dry_run(request: web.Request) -> web.Response:
    control, running = request.app[CONTROL], request.app[DRY_RUNS]
    if running.locked():
        raise web.HTTPServiceUnavailable(text=f"{DRY_RUNS_MAX} dry runs are going on already")
    async with running:
        body = await read_body(request.clone(client_max_size=CONFIGURATION_BYTES))
        trial = parse_body(Trial, body) if body else Trial()
        return json_answer(dry_run_view(await control.dry_run(trial.content), control.status()))


async def reload(request: web.Request) -> web.Response:
    control = request.app[CONTROL]
    await control.reload()
    return json_answer(status_view(control.status(), {}, moment(time))["config"])


async def get_health(request: web.Request) -> web.Response:
    return json_answer({"status": "ok"})


async def get_readiness(request: web.Request) -> web.Response:
    status = request.app[CONTROL].status()
    view = readiness_view(status)
    return json_answer(view, HTTPStatus.OK if status.ready else HTTPStatus.SERVICE_UNAVAILABLE)


async def get_metrics(request: web.Request) -> web.Response:
    control, timings = request.app[CONTROL], request.app[TIMINGS]
    timings.scraped()
    await control.sampler.refresh()
    snapshot = metrics.Snapshot(
        status=control.status(),
        census=await request.app[LISTING].census(),
        policies=[policy.name for policy in control.policies()],
        timings=timings,
        options=control.option_counters(),
        carried=control.ledger.accounts(),
        kernel=await asyncio.to_thread(read_counters),
    )
    return web.Response(body=metrics.exposition(snapshot), headers={"Content-Type": metrics.CONTENT_TYPE})


async def get_openapi(request: web.Request) -> web.Response:
    return _bytes_answer(request.app[OPENAPI])


async def read_body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except ConnectionError:  # nobody reads the answer, and nobody need read of it in the log
        raise web.HTTPBadRequest(text="the connection ended before the body did") from None
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body was not there after {BODY_TIMEOUT_S:g} s") from None


def session_of(request: web.Request) -> Session:
    text = request.match_info["token"]
    token = parse_token(text)
    session = None if token is None else request.app[CONTROL].sessions().get(token)
    if session is None:
        raise _no_session(text)
    return session


def _no_session(text: str) -> NotFound:
    return NotFound(f"no session {text}")


def _subflow_document(control: ControlPlane, session: Session, subflow: Subflow) -> Any:
    figures = control.stats([session])[0]
    mine = [f for s, f in zip(session.subflows, figures, strict=False) if s is subflow]
    return subflow_view(subflow, path_manager_of(session), mine[0] if mine else None)


async def _sessions_by_policy(request: web.Request) -> Counter[str]:
    counts: Counter[str] = Counter()
    for (policy, _), count in (await request.app[LISTING].census()).sessions.items():
        if policy is not None:
            counts[policy] += count
    return counts


def json_answer(value: Any, status: int = HTTPStatus.OK) -> web.Response:
    return _bytes_answer(encode(value), status)


def _bytes_answer(body: bytes, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")
