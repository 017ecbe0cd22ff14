# SPDX-License-Identifier: GPL-2.0-only
"""Telling the service manager how the service is (sd_notify(3)); nothing happens without one."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """``READY=1``, ``RELOADING=1``, ``STOPPING=1`` to the socket that $NOTIFY_SOCKET names."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), address.replace("@", "\0", 1))
        except OSError:
            return  # the manager is gone: nobody to tell
