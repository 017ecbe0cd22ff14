# SPDX-License-Identifier: Apache-2.0
"""Interfaces, and figures over time. Whoever asks keeps the samples coming."""

from __future__ import annotations

from collections import Counter

from aiohttp import web

from pm.api.handlers import json_answer, session_of
from pm.api.keys import CONTROL, LISTING
from pm.api.listing import FAILED
from pm.api.series_views import (
    Use,
    interface_series_view,
    interfaces_view,
    policy_series_view,
    session_series_view,
)
from pm.errors import NotFound
from pm.interfaces import Interface


async def list_interfaces(request: web.Request) -> web.Response:
    control = request.app[CONTROL]
    control.sampler.look()
    census = await request.app[LISTING].census()
    subflows: Counter[Interface] = Counter()
    for (_, interface, state), count in census.subflows.items():
        if state != FAILED:
            subflows[interface] += count
    used = {one: Use(census.interfaces[one], count) for one, count in subflows.items() if count}
    return json_answer(
        interfaces_view(
            control.sampler,
            control.addresses(),
            control.ledger,
            used,
            control.link_state,
            len(control.sessions()),
        )
    )


async def interface_series(request: web.Request) -> web.Response:
    control, name = request.app[CONTROL], request.match_info["name"]
    control.sampler.look()
    ledger = control.ledger
    found = ledger.interfaces.by_name(ledger.by_interface()).get(name, ())
    if not found and all(address.ifname != name for address in control.addresses()):
        raise NotFound(f"no interface {name!r}")
    return json_answer(interface_series_view(control.sampler, name, found, len(control.sessions())))


async def policy_series(request: web.Request) -> web.Response:
    control, name = request.app[CONTROL], request.match_info["name"]
    control.sampler.look()
    if all(policy.name != name for policy in control.policies()):
        raise NotFound(f"no policy {name!r}")
    named, sessions = control.ledger.interfaces, len(control.sessions())
    return json_answer(policy_series_view(control.sampler, name, named, sessions))


async def session_series(request: web.Request) -> web.Response:
    control, session = request.app[CONTROL], session_of(request)
    control.sampler.look()
    return json_answer(session_series_view(control.sampler, session, len(control.sessions())))
