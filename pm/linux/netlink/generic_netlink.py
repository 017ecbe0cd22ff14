# SPDX-License-Identifier: Apache-2.0
"""What a generic netlink family offers: its id, commands and groups (include/uapi/linux/genetlink.h)."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping
from sys import byteorder
from typing import NamedTuple

from pm.linux.netlink import framing

NETLINK_GENERIC = 16
GENL_ID_CTRL = 16
CTRL_VERSION = 1
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, CTRL_ATTR_OPS, CTRL_ATTR_MCAST_GROUPS = 1, 2, 6, 7
CTRL_ATTR_OP_ID = 1
CTRL_ATTR_MCAST_GRP_NAME, CTRL_ATTR_MCAST_GRP_ID = 1, 2

HEADER = struct.Struct("=BBH")  # struct genlmsghdr: command, version, reserved


class Family(NamedTuple):
    """``commands`` are numbers; ``groups`` has the id of each multicast group by its name."""

    id: int
    commands: frozenset[int]
    groups: Mapping[str, int]


def find_family(name: str) -> Family:
    """Ask the kernel. Raises OSError, with ENOENT for a family that it does not have."""
    wanted = framing.pack_attribute(CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0")
    payload = HEADER.pack(CTRL_CMD_GETFAMILY, CTRL_VERSION, 0) + wanted
    return _parse_family(*ask(framing.pack(GENL_ID_CTRL, framing.NLM_F_REQUEST, 0, payload)))


def ask(request: bytes) -> tuple[bytes, framing.NetlinkMessage]:
    """The one message that answers a request, and the buffer it is in. Raises OSError for an error."""
    with framing.open_socket(NETLINK_GENERIC) as sock:
        sock.send(request)
        data = sock.recv(1 << 16)
    message = framing.message_at(data, 0)
    if message is None:
        raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
    if message.type == framing.NLMSG_ERROR:
        code = framing.error_of(data, message)
        raise OSError(code, os.strerror(code))
    return data, message


def _parse_family(data: bytes, message: framing.NetlinkMessage) -> Family:
    family_id = 0
    commands: list[int] = []
    groups: dict[str, int] = {}
    for type_, start, end in framing.attributes(data, message.start + HEADER.size, message.end):
        if type_ == CTRL_ATTR_FAMILY_ID:
            family_id = _number(data[start:end])
        elif type_ == CTRL_ATTR_OPS:
            commands += [_number(entry[CTRL_ATTR_OP_ID]) for entry in _entries(data, start, end)]
        elif type_ == CTRL_ATTR_MCAST_GROUPS:
            for entry in _entries(data, start, end):
                name = entry[CTRL_ATTR_MCAST_GRP_NAME].rstrip(b"\0").decode()
                groups[name] = _number(entry[CTRL_ATTR_MCAST_GRP_ID])
    return Family(family_id, frozenset(commands), groups)


def _entries(data: bytes, start: int, end: int) -> list[dict[int, bytes]]:
    """A nested array: the attributes of each entry by type."""
    return [
        {type_: data[at:stop] for type_, at, stop in framing.attributes(data, entry, entry_end)}
        for _, entry, entry_end in framing.attributes(data, start, end)
    ]


def _number(packed: bytes) -> int:
    return int.from_bytes(packed, byteorder)
