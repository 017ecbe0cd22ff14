# SPDX-License-Identifier: Apache-2.0
"""The keys of what handlers find in the application."""

from __future__ import annotations

import asyncio
from collections.abc import Container

from aiohttp import web

from pm.api.access import Access
from pm.api.control import ControlPlane
from pm.api.listing import Listing
from pm.api.metrics import Timings

CONTROL = web.AppKey("CONTROL", ControlPlane)
LISTING = web.AppKey("LISTING", Listing)
TIMINGS = web.AppKey("TIMINGS", Timings)
ACCESS: web.AppKey[Access] = web.AppKey("ACCESS")
OPENAPI = web.AppKey("OPENAPI", bytes)
DRY_RUNS: web.AppKey[asyncio.Semaphore] = web.AppKey("DRY_RUNS")
PUBLIC: web.AppKey[Container[object]] = web.AppKey("PUBLIC")
"""The handlers that need no token."""
STREAMS: web.AppKey[set[asyncio.Task[None]]] = web.AppKey("STREAMS")
