# SPDX-License-Identifier: Apache-2.0
"""All that ``doctor`` looks at: what the service needs, and what decides whether there is a second path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from pm.api.inputs import canonical
from pm.config.model import SelectionMode
from pm.errors import PmError
from pm.linux.bpf.precompiled import check_objects
from pm.linux.host.mptcp_checks import mptcp_checks
from pm.linux.host.path_checks import path_checks
from pm.linux.host.probe import probe
from pm.linux.host.system_check import SystemCheck
from pm.linux.netlink.addresses import AddressMonitor
from pm.linux.netlink.pyroute2_family import find_family
from pm.model import LocalAddress
from pm.path_managers.choice import unusable
from pm.path_managers.registry import installed
from pm.policies.model import Addresses
from pm.selection import checks_for, choose_selection


def examine(cgroup_root: Path | None = None, remote: str | None = None) -> list[SystemCheck]:
    """Every check of this system. ``remote`` is the peer for which routes are looked up, if not any.

    Raises PmError for text that is not an address, and where the kernel does not answer.
    """
    remotes = _remotes(remote)
    found = probe(find_family, cgroup_root=cgroup_root, precompiled=check_objects)
    kernel = checks_for(choose_selection(SelectionMode.AUTO, found), found)
    addresses, is_tunnel = asyncio.run(_look_at_addresses())
    return [*kernel, *_plug_ins(), *mptcp_checks(), *path_checks(addresses, is_tunnel, remotes)]


def _remotes(text: str | None) -> dict[int, str] | None:
    if text is None:
        return None
    try:
        address = canonical(text)
        if address.is_loopback:
            raise ValueError(f"{text!r} is this host itself")
    except ValueError as e:
        raise PmError(str(e), "write 192.0.2.1, or 2001:db8::1") from None
    return {address.version: str(address)}


async def _look_at_addresses() -> tuple[tuple[LocalAddress, ...], Callable[[int], bool]]:
    """The local addresses as the default rules judge them, and which interfaces are tunnels."""
    async with AddressMonitor.open(Addresses(), lambda addresses: None) as monitor:
        tunnels = frozenset(monitor.tunnels())
        return monitor.addresses, tunnels.__contains__


def _plug_ins() -> list[SystemCheck]:
    """A check for each path manager of a third party."""
    problems = unusable()
    return [
        SystemCheck(f"path_manager_{i.name}", not problem, False, i.source, problem)
        for i in installed()
        if not i.built_in
        for problem in [i.problem or problems.get(i.name, "")]
    ]
