# SPDX-License-Identifier: GPL-2.0-only
"""The local addresses of this network namespace, followed over rtnetlink, and which of them to use.

Subscribe, dump, follow; lost messages (ENOBUFS) mean dump again. Hand-decoded: a link message takes
pyroute2 twenty times as long, and its asynchronous socket is unusable after an ENOBUFS.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import NamedTuple, Self

from pm.errors import KernelRefused
from pm.linux.ip import ip_bytes, ip_text
from pm.linux.netlink import framing
from pm.model import LocalAddress
from pm.policies.model import Addresses

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100

# include/uapi/linux/if.h
IFF_UP, IFF_LOOPBACK, IFF_RUNNING, IFF_LOWER_UP = 0x1, 0x8, 0x40, 0x10000
IFLA_IFNAME = 3

# include/uapi/linux/if_addr.h
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_TEMPORARY = IFA_F_SECONDARY = 0x01  # the first on IPv6, the second on IPv4
IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE = 0x08, 0x20, 0x40

RECEIVE_BUFFER_BYTES = 4 << 20
ATTEMPTS = 10

_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBI")
_U32 = struct.Struct("=I")


class Link(NamedTuple):
    """An interface: its name and IFF_* flags."""

    name: str
    flags: int


class AddressKey(NamedTuple):
    """What tells addresses apart: IPv4 allows one address with several prefix lengths or peers."""

    ifindex: int
    ip: str
    prefix_len: int
    peer: str


def judge(key: AddressKey, flags: int, link: Link, rules: Addresses) -> LocalAddress:
    """What path managers may do with an address. ``flags`` are IFA_F_*. Pure."""
    down = _cannot_carry(flags, link)
    excluded = down or _not_wanted(key.ip, flags, link, rules)
    return LocalAddress(
        ip=key.ip,
        prefix_len=key.prefix_len,
        ifindex=key.ifindex,
        ifname=link.name,
        usable=not excluded,
        backup=_matches(link.name, rules.backup),
        why=excluded or "usable",
        up=not down,
    )


def _cannot_carry(flags: int, link: Link) -> str:
    if not link.flags & IFF_UP:
        return "interface is down"
    if not link.flags & IFF_RUNNING or not link.flags & IFF_LOWER_UP:
        return "interface has no carrier"
    if flags & IFA_F_DADFAILED:
        return "duplicate address detected"
    if flags & IFA_F_TENTATIVE:
        return "tentative: duplicate address detection is running"
    return ""


def _not_wanted(ip: str, flags: int, link: Link, rules: Addresses) -> str:
    address = ipaddress.ip_address(ip)
    if link.flags & IFF_LOOPBACK:
        return "loopback interface"
    if address.is_loopback:
        return "loopback address"
    if address.is_multicast:
        return "multicast address"
    if address.is_unspecified:
        return "unspecified address"
    if flags & IFA_F_DEPRECATED:
        temporary = address.version == 6 and flags & IFA_F_TEMPORARY
        return "temporary address that expired" if temporary else "deprecated: preferred lifetime is over"
    if address.is_link_local and not rules.link_local:
        return "link-local, and addresses.link_local is false"
    if _matches(link.name, rules.exclude):
        return "interface matches addresses.exclude"
    if not _matches(link.name, rules.include):
        return "interface does not match addresses.include"
    return ""


def _matches(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _subscribe(receive_buffer_bytes: int) -> socket.socket:
    return framing.open_socket(
        socket.NETLINK_ROUTE,
        receive_buffer_bytes=receive_buffer_bytes,
        groups=RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR,
    )


class AddressMonitor:
    """Follows links and addresses; made by ``open``. ``addresses`` is complete from the start.

    They are in a fixed order: by interface, IPv4 first, secondary and temporary ones last.
    """

    def __init__(
        self,
        rules: Addresses,
        on_change: Callable[[tuple[LocalAddress, ...]], None],
        sock: socket.socket,
        receive_buffer_bytes: int,
    ) -> None:
        self.addresses: tuple[LocalAddress, ...] = ()
        self._rules = rules
        self._on_change = on_change
        self._socket = sock
        self._receive_buffer_bytes = receive_buffer_bytes
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
        receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES,
    ) -> AsyncIterator[Self]:
        """Dump, then follow. Raises KernelRefused where the kernel does not answer the dump.

        ``on_change`` gets all addresses whenever any of them or its verdict has changed since.
        """
        monitor = cls(rules, on_change, _subscribe(receive_buffer_bytes), receive_buffer_bytes)
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

    def set_rules(self, rules: Addresses) -> None:
        """Judge all addresses by other rules (reload)."""
        self._rules = rules
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
        changed = addresses != self.addresses
        if changed:
            self.addresses = addresses
            self._interfaces = {address.ip: address.ifindex for address in addresses}
        return changed

    def _judge_all(self) -> tuple[LocalAddress, ...]:
        judged: dict[tuple[int, str], LocalAddress] = {}
        for key, flags in sorted(self._flags.items(), key=_order):
            link = self._links.get(key.ifindex)
            if link is not None:
                judged.setdefault((key.ifindex, key.ip), judge(key, flags, link, self._rules))
        return tuple(judged.values())

    def _follow(self) -> None:
        """Dump, then follow. On a new socket each time: one that lost messages can hold half a dump."""
        for _ in range(ATTEMPTS):
            try:
                self._links.clear()
                self._flags.clear()
                # Interfaces first: an address without its interface cannot be judged.
                if self._dump(RTM_GETLINK, _IFINFOMSG.size) and self._dump(RTM_GETADDR, _IFADDRMSG.size):
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
        family, _, ifindex, flags, _ = _IFINFOMSG.unpack_from(data, message.start)
        if family != socket.AF_UNSPEC:
            return  # AF_BRIDGE: a port joins or leaves its bridge, the link itself lives on
        if message.type == RTM_DELLINK:
            self._links.pop(ifindex, None)
            for key in [key for key in self._flags if key.ifindex == ifindex]:
                del self._flags[key]
            return
        for type_, start, end in framing.attributes(data, message.start + _IFINFOMSG.size, message.end):
            if type_ == IFLA_IFNAME:
                name = data[start : end - 1].decode(errors="surrogateescape")
                self._links[ifindex] = Link(name, flags)
                return

    def _apply_address(self, data: bytes, message: framing.NetlinkMessage) -> None:
        _, prefix_len, flags, _, ifindex = _IFADDRMSG.unpack_from(data, message.start)
        local = peer = ""
        for type_, start, end in framing.attributes(data, message.start + _IFADDRMSG.size, message.end):
            if type_ == IFA_LOCAL:
                local = ip_text(data[start:end])
            elif type_ == IFA_ADDRESS:
                peer = ip_text(data[start:end])
            elif type_ == IFA_FLAGS:
                (flags,) = _U32.unpack_from(data, start)
        # With a peer, IFA_ADDRESS is the peer's; IPv6 has IFA_LOCAL only then.
        key = AddressKey(ifindex, local or peer, prefix_len, peer)
        if message.type == RTM_NEWADDR:
            self._flags[key] = flags
        else:
            self._flags.pop(key, None)


def _order(item: tuple[AddressKey, int]) -> tuple[int, int, int, bytes, int, str]:
    key, flags = item
    packed = ip_bytes(key.ip)
    return key.ifindex, len(packed), flags & IFA_F_SECONDARY, packed, key.prefix_len, key.peer
