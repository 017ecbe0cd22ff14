# SPDX-License-Identifier: Apache-2.0
"""The keys of what handlers find in the application."""

from __future__ import annotations

import asyncio

from aiohttp import web

from pm.api.control import ControlPlane
from pm.api.interface_census import InterfaceCensus
from pm.api.listing import Listing
from pm.api.metrics import Timings

CONTROL = web.AppKey("CONTROL", ControlPlane)
INTERFACES = web.AppKey("INTERFACES", InterfaceCensus)
LISTING = web.AppKey("LISTING", Listing)
TIMINGS = web.AppKey("TIMINGS", Timings)
TOKEN: web.AppKey[bytes | None] = web.AppKey("TOKEN")
OPENAPI = web.AppKey("OPENAPI", bytes)
DRY_RUNS: web.AppKey[asyncio.Semaphore] = web.AppKey("DRY_RUNS")
STREAMS: web.AppKey[set[asyncio.Task[None]]] = web.AppKey("STREAMS")
