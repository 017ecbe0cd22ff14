# SPDX-License-Identifier: Apache-2.0
"""The endpoints and limits of the namespace, as ``ip mptcp`` shows them. Anybody may read them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from sys import byteorder
from typing import Self

from pm.errors import KernelRefused
from pm.linux.ip import ip_text
from pm.linux.netlink import framing, generic_netlink
from pm.linux.netlink.generic_netlink import NETLINK_GENERIC, find_family
from pm.linux.netlink.mptcp_pm_messages import (
    FAMILY,
    MPTCP_PM_ADDR_ATTR_ADDR4,
    MPTCP_PM_ADDR_ATTR_ADDR6,
    MPTCP_PM_ADDR_ATTR_FLAGS,
    MPTCP_PM_ADDR_ATTR_ID,
    MPTCP_PM_ADDR_ATTR_IF_IDX,
    MPTCP_PM_ADDR_ATTR_PORT,
    MPTCP_PM_ATTR_ADDR,
    MPTCP_PM_ATTR_RCV_ADD_ADDRS,
    MPTCP_PM_ATTR_SUBFLOWS,
    VERSION,
    AddressFlag,
    Command,
)
from pm.linux.netlink.source_lookup import SourceLookup
from pm.model import Endpoint, EndpointTable

WHAT = "read the MPTCP endpoints"
_AT = generic_netlink.HEADER.size


class EndpointReader:
    """Reads the table of the network namespace in which it was opened; made by ``open``."""

    def __init__(self, sock: socket.socket, family_id: int, sources: SourceLookup) -> None:
        self._socket = sock
        self._family_id = family_id
        self._sources = sources
        self._sequence = 0

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self]:
        """Raises OSError."""
        family = find_family(FAMILY)
        with framing.open_socket(NETLINK_GENERIC) as sock, SourceLookup.open() as sources:
            yield cls(sock, family.id, sources)

    def source_of(self, destination: str) -> str:
        """The source address that the routes give for a destination, "" for none."""
        return self._sources.source_of(0, destination)

    def read(self) -> EndpointTable:
        """The table as it is now, in the kernel's order. Raises KernelRefused."""
        try:
            endpoints = tuple(_endpoint(item) for item in self._ask(Command.GET_ADDR, framing.NLM_F_DUMP))
            (limits,) = self._ask(Command.GET_LIMITS, 0)
        except OSError as e:
            raise KernelRefused(WHAT, e.errno or errno.EIO) from e
        except (KeyError, ValueError) as e:  # not what the kernel answers
            raise KernelRefused(WHAT, errno.EBADMSG) from e
        return EndpointTable(
            endpoints,
            _number(limits[MPTCP_PM_ATTR_SUBFLOWS]),
            _number(limits[MPTCP_PM_ATTR_RCV_ADD_ADDRS]),
        )

    def _ask(self, command: Command, flags: int) -> list[dict[int, bytes]]:
        """The attributes of each message of the answer."""
        self._sequence += 1
        payload = generic_netlink.HEADER.pack(command, VERSION, 0)
        request = framing.pack(self._family_id, framing.NLM_F_REQUEST | flags, self._sequence, payload)
        self._socket.send(request)
        found: list[dict[int, bytes]] = []
        while True:
            data = self._socket.recv(1 << 16)
            for message in framing.messages(data):
                if message.sequence != self._sequence:
                    continue  # what is left of an answer that was given up
                if message.type in (framing.NLMSG_ERROR, framing.NLMSG_DONE):
                    if code := framing.error_of(data, message):
                        raise OSError(code, os.strerror(code))
                    return found
                found.append(_attributes(data, message.start + _AT, message.end))
                if not flags:
                    return found


def _attributes(data: bytes, start: int, end: int) -> dict[int, bytes]:
    return {type_: data[at:stop] for type_, at, stop in framing.attributes(data, start, end)}


def _endpoint(message: dict[int, bytes]) -> Endpoint:
    nested = message[MPTCP_PM_ATTR_ADDR]
    values = _attributes(nested, 0, len(nested))
    packed = values.get(MPTCP_PM_ADDR_ATTR_ADDR4) or values[MPTCP_PM_ADDR_ATTR_ADDR6]
    flags = _number(values.get(MPTCP_PM_ADDR_ATTR_FLAGS, b""))
    return Endpoint(
        ip_text(packed),
        _number(values[MPTCP_PM_ADDR_ATTR_ID]),
        _number(values.get(MPTCP_PM_ADDR_ATTR_PORT, b"")),
        _number(values.get(MPTCP_PM_ADDR_ATTR_IF_IDX, b"")),
        bool(flags & AddressFlag.SIGNAL),
        bool(flags & AddressFlag.SUBFLOW),
        bool(flags & AddressFlag.BACKUP),
        bool(flags & AddressFlag.FULLMESH),
        bool(flags & AddressFlag.LAMINAR),
    )


def _number(packed: bytes) -> int:
    return int.from_bytes(packed, byteorder)
