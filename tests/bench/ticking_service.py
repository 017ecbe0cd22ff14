# SPDX-License-Identifier: Apache-2.0
"""The command ``mptcp-pm``; its event loop writes to ``STALLS_FILE`` when it did not come round for a while.

Each line: time of CLOCK_MONOTONIC, seconds that passed, seconds of the thread's processor time of them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import uvloop

from pm.cli.main import main

TICK_S, TOLD_S = 0.002, 0.010

_new_event_loop = uvloop.new_event_loop


class Ticker:
    def __init__(self, loop: asyncio.AbstractEventLoop, path: str) -> None:
        self.loop = loop
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        self.last = (time.monotonic(), time.thread_time())
        loop.call_soon(self.tick)

    def tick(self) -> None:
        now = (time.monotonic(), time.thread_time())
        passed, used = (n - last for n, last in zip(now, self.last, strict=True))
        if passed > TOLD_S:
            os.write(self.file, f"{now[0]} {passed} {used}\n".encode())
        self.last = now
        self.loop.call_later(TICK_S, self.tick)


def new_event_loop() -> asyncio.AbstractEventLoop:
    loop = _new_event_loop()
    Ticker(loop, os.environ["STALLS_FILE"])
    return loop


if __name__ == "__main__":
    uvloop.new_event_loop = new_event_loop  # type: ignore[assignment]
    sys.exit(main())
