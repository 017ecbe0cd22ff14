# SPDX-License-Identifier: Apache-2.0
"""The local addresses of this network namespace, followed over rtnetlink, and which of them to use.

Subscribe, dump, follow; lost messages (ENOBUFS) mean dump again, on a new socket.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Self

from pm.errors import KernelRefused
from pm.interfaces import Interfaces
from pm.linux.ip import ip_bytes
from pm.linux.netlink import framing
from pm.linux.netlink.address_choice import Judged, SourceOf, one_interface_each, one_per_prefix
from pm.linux.netlink.address_rules import admits, carries, is_backup, judge, rank
from pm.linux.netlink.link_kinds import IN_EVERY_NAMESPACE, dead_ends, is_tunnel, vrf_of
from pm.linux.netlink.metric_lookup import MetricLookup
from pm.linux.netlink.rtnetlink import (
    IFA_F_SECONDARY,
    IFADDRMSG,
    IFF_UP,
    IFINFOMSG,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_LINK,
    AddressKey,
    Link,
    read_address,
    read_link,
)
from pm.linux.netlink.source_lookup import SourceLookup
from pm.model import LinkState, LocalAddress, interfaces_of
from pm.policies.model import Addresses

RECEIVE_BUFFER_BYTES = 4 << 20
ATTEMPTS = 10


def _subscribe(receive_buffer_bytes: int) -> socket.socket:
    return framing.open_socket(
        socket.NETLINK_ROUTE,
        receive_buffer_bytes=receive_buffer_bytes,
        groups=RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR,
    )


class AddressMonitor:
    """Follows links and addresses; made by ``open``. ``addresses`` is complete from the start.

    They are as ``addresses.order`` has them, else in a fixed order: by interface, IPv4 first, secondary and
    temporary ones last.
    """

    def __init__(
        self,
        rules: Addresses,
        on_change: Callable[[tuple[LocalAddress, ...]], None],
        sock: socket.socket,
        receive_buffer_bytes: int,
        source_of: SourceOf,
        metrics: MetricLookup,
        registry: Interfaces,
    ) -> None:
        self.addresses: tuple[LocalAddress, ...] = ()
        self.interfaces: frozenset[str] = frozenset()
        """All but ``lo`` and the tunnels that every namespace has, with addresses or without."""
        self.admitted: Mapping[int, bool] = {}
        """Interfaces whose addresses the rules admit -> whether subflows over them are backups."""
        self._rules = rules
        self._on_change = on_change
        self._socket = sock
        self._receive_buffer_bytes = receive_buffer_bytes
        self._source_of = source_of
        self._metrics = metrics
        self._registry = registry
        self._asked = False
        self._links: dict[int, Link] = {}
        self._flags: dict[AddressKey, int] = {}
        self._interfaces: dict[str, int] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        rules: Addresses,
        on_change: Callable[[tuple[LocalAddress, ...]], None],
        *,
        registry: Interfaces | None = None,
        receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES,
    ) -> AsyncIterator[Self]:
        """Dump, then follow, and tell ``registry`` which interfaces there are.

        Raises KernelRefused where the kernel does not answer the dump.

        ``on_change`` gets all addresses whenever any of them or its verdict, or an interface, has changed
        since.
        """
        with SourceLookup.open() as lookup, MetricLookup.open() as metrics:
            subscribed = _subscribe(receive_buffer_bytes)
            source_of, registry = lookup.source_of, registry or Interfaces()
            monitor = cls(rules, on_change, subscribed, receive_buffer_bytes, source_of, metrics, registry)
            monitor._follow()
            monitor._update()
            try:
                yield monitor
            finally:
                monitor._close()

    @property
    def usable(self) -> tuple[LocalAddress, ...]:
        return tuple(address for address in self.addresses if address.usable)

    def interface_of(self, ip: str) -> int:
        """Index of the interface that has the address, or 0."""
        return self._interfaces.get(ip, 0)

    def vrf_of(self, ip: str) -> int:
        """Index of the VRF of the interface that has the address, or 0."""
        link = self._links.get(self.interface_of(ip))
        return vrf_of(link, self._links) if link else 0

    def name_of(self, ifindex: int) -> str:
        """The name of an interface."""
        link = self._links.get(ifindex)
        return link.name if link else f"interface {ifindex}"

    def state_of(self, name: str) -> LinkState:
        """What becomes of packets over an interface."""
        link = next((link for link in self._links.values() if link.name == name), None)
        if link is None:
            return LinkState.GONE
        if not link.flags & IFF_UP:
            return LinkState.DOWN
        return LinkState.UP if carries(link) else LinkState.NO_CARRIER

    def is_tunnel(self, ifindex: int) -> bool:
        """Whether packets over the interface travel over another one, inside a tunnel."""
        link = self._links.get(ifindex)
        return link is not None and is_tunnel(link, self._links)

    def tunnels(self) -> list[int]:
        """The indices of all interfaces that are tunnels."""
        return [ifindex for ifindex in self._links if self.is_tunnel(ifindex)]

    @property
    def rules(self) -> Addresses:
        """The rules in force."""
        return self._rules

    def set_rules(self, rules: Addresses) -> None:
        """Judge all addresses by other rules (reload)."""
        self._rules = rules
        self._publish()

    def under(self, rules: Addresses) -> tuple[LocalAddress, ...]:
        """The addresses as other rules would judge them."""
        mine, asked = self._rules, self._asked
        self._rules = rules
        try:
            return self._judge_all()
        finally:
            self._rules, self._asked = mine, asked

    def judge_again(self) -> None:
        """Ask once more what routes may have changed: metrics, and the address preferred of a prefix."""
        if self._asked or self._metrics.with_metrics(self.addresses) != self.addresses:
            self._publish()

    def _on_readable(self) -> None:
        try:
            while True:
                self._apply(self._socket.recv(65536))
        except BlockingIOError:
            pass
        except OSError as e:
            if e.errno != errno.ENOBUFS:
                raise
            self._close()
            self._socket = _subscribe(self._receive_buffer_bytes)
            self._follow()
        self._publish()

    def _publish(self) -> None:
        if self._update():
            self._on_change(self.addresses)

    def _update(self) -> bool:
        addresses = self._judge_all()
        interfaces = frozenset(link.name for link in self._links.values()) - IN_EVERY_NAMESPACE
        admitted = self._admit()
        changed = (addresses, interfaces, admitted) != (self.addresses, self.interfaces, self.admitted)
        if changed:
            self.addresses = addresses
            self.admitted = admitted
            self.interfaces = interfaces
            self._interfaces = interfaces_of(addresses)
        return changed

    def _judge_all(self) -> tuple[LocalAddress, ...]:
        judged: dict[tuple[int, str], Judged] = {}
        reasons = dead_ends(self._links)
        self._asked = False
        for key, flags in sorted(self._flags.items(), key=self._place):
            link = self._links.get(key.ifindex)
            if link is not None:
                vrf = vrf_of(link, self._links)
                address = judge(key, flags, link, self._rules, reasons.get(key.ifindex, ""), vrf)
                judged.setdefault((key.ifindex, key.ip), Judged(key, flags, address))
        found = tuple(judged.values())
        every = [entry.address for entry in found] if self._rules.all else one_per_prefix(found, self._ask)
        return self._metrics.with_metrics(one_interface_each(every))

    def _admit(self) -> dict[int, bool]:
        reasons = dead_ends(self._links)
        return {
            ifindex: is_backup(link, self._rules)
            for ifindex, link in self._links.items()
            if admits(link, self._rules, reasons.get(ifindex, "")) and not vrf_of(link, self._links)
        }

    def _place(self, item: tuple[AddressKey, int]) -> tuple[int, tuple[int, int, int, bytes, int, str]]:
        """As ``addresses.order`` has them, then in an order that never changes."""
        key, _ = item
        link = self._links.get(key.ifindex)
        return rank(link.name if link else "", self._rules), _order(item)

    def _ask(self, ifindex: int, destination: str) -> str:
        self._asked = True
        return self._source_of(ifindex, destination)

    def _follow(self) -> None:
        """Dump, then follow. On a new socket each time: one that lost messages can hold half a dump."""
        for _ in range(ATTEMPTS):
            try:
                self._links.clear()
                self._flags.clear()
                # Interfaces first: an address without its interface cannot be judged.
                if self._dump(RTM_GETLINK, IFINFOMSG.size) and self._dump(RTM_GETADDR, IFADDRMSG.size):
                    self._registry.only(self._links)
                    asyncio.get_running_loop().add_reader(self._socket, self._on_readable)
                    return
            except OSError as e:
                if e.errno not in (errno.ENOBUFS, errno.EAGAIN):
                    self._socket.close()
                    raise KernelRefused("reading links and addresses", e.errno or 0) from e
            self._socket.close()
            self._socket = _subscribe(self._receive_buffer_bytes)
        self._socket.close()
        raise KernelRefused("reading links and addresses", errno.ENOBUFS, "they change faster than read")

    def _close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _dump(self, request: int, header_size: int) -> bool:
        """Apply a dump and the events between its parts, in order. False where it is inconsistent.

        The kernel fills the next part inside recv(): a dump never waits.
        """
        flags = framing.NLM_F_REQUEST | framing.NLM_F_DUMP
        self._socket.send(framing.pack(request, flags, request, bytes(header_size)))
        consistent = True
        while True:
            data = self._socket.recv(65536)
            self._apply(data)
            for message in framing.messages(data):
                if message.sequence != request:
                    continue
                consistent = consistent and not message.flags & framing.NLM_F_DUMP_INTR
                if message.type in (framing.NLMSG_DONE, framing.NLMSG_ERROR):
                    if code := framing.error_of(data, message):
                        raise OSError(code, "dump refused")
                    return consistent

    def _apply(self, data: bytes) -> None:
        for message in framing.messages(data):
            if message.type in (RTM_NEWLINK, RTM_DELLINK):
                self._apply_link(data, message)
            elif message.type in (RTM_NEWADDR, RTM_DELADDR):
                self._apply_address(data, message)

    def _apply_link(self, data: bytes, message: framing.NetlinkMessage) -> None:
        link = read_link(data, message)
        if link is None:
            return
        if message.type == RTM_NEWLINK:
            self._links[link.ifindex] = link
            self._registry.seen(link.ifindex, link.name)
            return
        self._links.pop(link.ifindex, None)
        self._registry.gone(link.ifindex)
        for key in [key for key in self._flags if key.ifindex == link.ifindex]:
            del self._flags[key]

    def _apply_address(self, data: bytes, message: framing.NetlinkMessage) -> None:
        key, flags = read_address(data, message)
        if message.type == RTM_NEWADDR:
            self._flags[key] = flags
        else:
            self._flags.pop(key, None)


def _order(item: tuple[AddressKey, int]) -> tuple[int, int, int, bytes, int, str]:
    key, flags = item
    packed = ip_bytes(key.ip)
    return key.ifindex, len(packed), flags & IFA_F_SECONDARY, packed, key.prefix_len, key.peer
