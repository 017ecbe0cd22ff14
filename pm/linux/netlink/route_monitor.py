# SPDX-License-Identifier: Apache-2.0
"""That routes or rules have changed, told at most once a second however many they are.

Nobody needs to know which: what could not be opened may be possible now. So nothing is decoded, and lost
messages lose nothing. The receive buffer is small on purpose: while a routing daemon loads a table, the
kernel drops what we would throw away.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

from pm.clock import Timer
from pm.linux.netlink import framing

# include/uapi/linux/rtnetlink.h: groups as bits, RTNLGRP_x - 1. A nexthop object that changes moves the
# routes that use it, without a word about them.
RTMGRP_IPV4_ROUTE, RTMGRP_IPV4_RULE, RTMGRP_IPV6_ROUTE = 0x40, 0x80, 0x400
RTMGRP_IPV6_RULE, RTMGRP_NEXTHOP = 1 << 18, 1 << 31
GROUPS = RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_RULE | RTMGRP_IPV6_ROUTE | RTMGRP_IPV6_RULE | RTMGRP_NEXTHOP

PAUSE_S = 1.0
RECEIVE_BUFFER_BYTES = 64 << 10
# More than the buffer holds. Somebody who changes routes faster than we read does not keep us here.
DRAIN_MAX = 1024


class RouteMonitor:
    """Calls ``on_routes`` at the first change, then at most once a second while changes go on.

    After the last change there is always a call. Made by ``open``.
    """

    def __init__(self, on_routes: Callable[[], None], sock: socket.socket, pause_s: float) -> None:
        self._on_routes = on_routes
        self._socket = sock
        self._pause_s = pause_s
        self._timer: Timer | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, on_routes: Callable[[], None], *, pause_s: float = PAUSE_S) -> AsyncIterator[Self]:
        """Follow from now on. Raises OSError."""
        sock = framing.open_socket(
            socket.NETLINK_ROUTE, receive_buffer_bytes=RECEIVE_BUFFER_BYTES, groups=GROUPS
        )
        with sock:
            monitor = cls(on_routes, sock, pause_s)
            monitor._listen()
            try:
                yield monitor
            finally:
                monitor._close()

    def _listen(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket, self._on_readable)

    def _on_readable(self) -> None:
        # Not only for the pause: an overrun socket polls EPOLLERR, upon which libuv forgets it. A reader that
        # is added again is followed again, and one that is away cannot spin.
        asyncio.get_running_loop().remove_reader(self._socket)
        self._drain()
        self._tell()

    def _tell(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._pause_s, self._after_pause)
        self._on_routes()

    def _after_pause(self) -> None:
        if self._drain():
            self._tell()
        else:
            self._listen()

    def _drain(self) -> bool:
        """Throw away what is there; whether there was anything.

        After an overrun the kernel delivers nothing until the socket is empty. Should it not be empty after
        DRAIN_MAX messages, the next turn goes on.
        """
        changed = False
        for _ in range(DRAIN_MAX):
            try:
                self._socket.recv(1)  # the rest of a datagram goes with it
            except BlockingIOError:
                break
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise
            changed = True
        return changed

    def _close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        if self._timer:
            self._timer.cancel()
