# SPDX-License-Identifier: Apache-2.0
"""Tells the service manager the state of the service (sd_notify(3)); without one, nothing happens."""

from __future__ import annotations

import asyncio
import os
import socket


def notify(state: str) -> None:
    """Send a state, such as ``READY=1`` or ``WATCHDOG=1``, to the socket that $NOTIFY_SOCKET names."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), address.replace("@", "\0", 1))
        except OSError:
            return  # the service manager is gone


async def feed_watchdog() -> None:
    """Run forever: say that the event loop works, twice in the time that the service manager allows."""
    time_s = watchdog_s()
    while time_s:
        notify("WATCHDOG=1")
        await asyncio.sleep(time_s / 2)


def watchdog_s() -> float:
    """WatchdogSec= of the unit (sd_watchdog_enabled(3)); 0 where there is none for this process."""
    time_us, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not time_us.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(time_us) / 1e6
