# SPDX-License-Identifier: Apache-2.0
"""Whether a packet from a local address to a remote one would leave where it should, and what helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pm.linux.netlink.path_lookup import Flow, NoRoute
from pm.model import LocalAddress, Way, is_link_local
from pm.policies.model import BindInterface


class Lookup(Protocol):
    """``pm.linux.netlink.path_lookup.PathLookup``."""

    def interface_of(self, flow: Flow) -> int: ...
    def try_bound(self, flow: Flow, ifindex: int) -> None: ...


class Interfaces(Protocol):
    """What is asked about interfaces (``pm.linux.netlink.addresses.AddressMonitor``)."""

    def name_of(self, ifindex: int) -> str: ...
    def is_tunnel(self, ifindex: int) -> bool: ...


class PathJudge:
    def __init__(self, lookup: Lookup, interfaces: Interfaces, mode: Callable[[], BindInterface]) -> None:
        """``mode`` is ``addresses.bind_interface`` as it is now."""
        self._lookup = lookup
        self._interfaces = interfaces
        self._mode = mode

    def way(self, address: LocalAddress, remote: str, remote_port: int, mark: int, device: int) -> Way:
        """The way of a subflow. ``mark`` and ``device`` (0: none) are those of its session's socket.

        Where the kernel does not answer, there is a way: opening the subflow will show.
        """
        if is_link_local(address.ip):
            return Way(address.ifindex)
        flow = Flow(address.ip, remote, remote_port, mark)
        try:
            return self._way(address, flow, device)
        except NoRoute as e:
            return Way(why=f"no route ({e})")
        except OSError:
            return Way()

    def _way(self, address: LocalAddress, flow: Flow, device: int) -> Way:
        if device:  # the application bound its socket: the kernel does not pass that on
            return self._bound(flow, device if address.holder else address.ifindex)
        mode = self._mode()
        if mode == BindInterface.TRUE and not address.holder:
            return self._bound(flow, address.ifindex)
        ifindex = self._lookup.interface_of(flow)
        if ifindex == address.ifindex or address.holder:
            return Way()
        other = self._interfaces.name_of(ifindex)
        if mode == BindInterface.FALSE:
            return Way(why=f"packets would leave by {other}, and addresses.bind_interface is false")
        if self._interfaces.is_tunnel(ifindex):
            return Way(why=f"the route leads into the tunnel {other}, which is not bypassed")
        try:
            return self._bound(flow, address.ifindex)
        except NoRoute:
            return Way(why=f"packets would leave by {other}: no route over {address.ifname}")

    def _bound(self, flow: Flow, ifindex: int) -> Way:
        self._lookup.try_bound(flow, ifindex)
        return Way(ifindex)
