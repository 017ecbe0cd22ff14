# SPDX-License-Identifier: Apache-2.0
"""Interfaces, and figures over time. Whoever asks keeps the samples coming."""

from __future__ import annotations

from collections import Counter
from typing import Any

from aiohttp import web

from pm.api.control import ControlPlane
from pm.api.keys import CONTROL, LISTING
from pm.api.requests import json_response, session_of
from pm.api.series_views import (
    Use,
    interface_series_view,
    interfaces_view,
    policy_series_view,
    session_series_view,
)
from pm.errors import NotFound


async def list_interfaces(request: web.Request) -> web.Response:
    control = request.app[CONTROL]
    control.sampler.look()
    census = await request.app[LISTING].census()
    subflows: Counter[str] = Counter()
    for (_, interface, _), count in census.subflows.items():
        subflows[interface] += count
    used = {name: Use(census.interfaces[name], count) for name, count in subflows.items() if count}
    return json_response(
        interfaces_view(
            control.sampler,
            control.addresses(),
            control.ledger.by_interface(),
            used,
            control.link_state,
            len(control.sessions()),
        )
    )
