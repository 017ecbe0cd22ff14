# SPDX-License-Identifier: Apache-2.0
"""``cgroup: auto``: finds the cgroups that have a socket in this network namespace.

MPTCP sessions are found by their events at once; the others, for TCP options, by asking the kernel now
and then for sockets of cgroups that are not known yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress

from pm.errors import KernelRefused
from pm.linux.netlink.socket_cgroups import cgroups_of_sockets
from pm.log import get_logger
from pm.programs.classifiers import Selection

INTERVAL_S = 2.0
KNOWN_MAX = 2048

log = get_logger()


async def follow_sockets(
    selection: Selection, ask: Callable[[Collection[int]], set[int]] = cgroups_of_sockets
) -> None:
    """Find and attach, forever."""
    known: set[int] = set()
    policy = None
    while True:
        if selection.automatic is not policy or len(known) > KNOWN_MAX:
            policy = selection.automatic
            known.clear()  # what had another policy may need this one now
        if policy:
            try:
                new = await asyncio.to_thread(ask, known)
            except KernelRefused as e:
                log.warning("question_refused", error=str(e))
            else:
                for cgroup_id in new:
                    selection.find(cgroup_id)
                known |= new
        if selection.news.is_set():
            await selection.attach_found()
        with suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL_S):
                await selection.news.wait()
