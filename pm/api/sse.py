# SPDX-License-Identifier: Apache-2.0
"""Server-sent events (WHATWG HTML, section 9.2): ``GET /v1/events``."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import cast

from aiohttp import web

from pm.api.auth import may_still_ask
from pm.api.events import Batch
from pm.api.input_shapes import EventQuery
from pm.api.inputs import parse_query
from pm.api.keys import CONTROL, STREAMS
from pm.api.views import encode, event_view

KEEP_ALIVE_S = 15.0
STREAMS_MAX = 64
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def stream_events(request: web.Request) -> web.StreamResponse:
    """Send events until the reader, its token, its login or the service ends, and what a slow one lost."""
    query = parse_query(EventQuery, request.query)
    after = request.headers.get("Last-Event-ID", "")
    if len(request.app[STREAMS]) >= STREAMS_MAX:
        raise web.HTTPServiceUnavailable(text=f"there are {STREAMS_MAX} readers of events already")
    response = web.StreamResponse(headers=_HEADERS)
    task = cast("asyncio.Task[None]", asyncio.current_task())
    request.app[STREAMS].add(task)
    try:
        async with request.app[CONTROL].subscribe(after) as reader:
            await response.prepare(request)
            await response.write(b": subscribed\n\n")  # from here on the reader misses nothing
            while True:
                text = b": keep-alive\n\n"
                with suppress(TimeoutError):
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        text = encode_batch(await reader.read(), query.type)
                if not may_still_ask(request):
                    break
                if text:
                    await response.write(text)
                await asyncio.sleep(0)
    except ConnectionResetError:
        pass
    finally:
        request.app[STREAMS].discard(task)
    return response


def encode_batch(batch: Batch, only: str | None) -> bytes:
    """A batch in event-stream format; ``only`` is the type that the reader wants, None for all."""
    lines = []
    if batch.lost != 0:
        lines.append(f"event: lost\ndata: {encode({'count': batch.lost}).decode()}\n\n")
    for event in batch.events:
        if only is None or event.kind == only:
            data = encode(event_view(event)).decode()
            lines.append(f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n")
    return "".join(lines).encode()


async def end_streams(app: web.Application) -> None:
    """End all streams at shutdown: they would never end by themselves."""
    for task in app[STREAMS]:
        task.cancel()
