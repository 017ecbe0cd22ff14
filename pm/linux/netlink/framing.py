# SPDX-License-Identifier: Apache-2.0
"""The netlink framing that all protocols here share (include/uapi/linux/netlink.h)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_ACK_TLVS = 0x200
NLM_F_DUMP = 0x300
NLA_F_NESTED = 0x8000
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK = 270
SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
ERROR = struct.Struct("=i")
TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


class NetlinkMessage(NamedTuple):
    """A message within a buffer; its payload is ``data[start:end]``."""

    type: int
    flags: int
    sequence: int
    start: int
    end: int


def message_at(data: bytes, offset: int) -> NetlinkMessage | None:
    """The message at an offset; None where there is none, or it is truncated."""
    if offset + 16 > len(data):
        return None
    length, type_, flags, sequence, _ = HEADER.unpack_from(data, offset)
    end = offset + length
    if length < 16 or end > len(data):
        return None
    return NetlinkMessage(type_, flags, sequence, offset + 16, end)


def messages(data: bytes) -> Iterator[NetlinkMessage]:
    """The messages of one datagram."""
    offset = 0
    while message := message_at(data, offset):
        yield message
        offset = (message.end + 3) & ~3


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(type, start, end) of each attribute between two offsets; stops before a truncated one."""
    unpack = ATTRIBUTE.unpack_from
    while start + 4 <= end:
        length, type_ = unpack(data, start)
        stop = start + length
        if length < 4 or stop > end:
            return
        yield type_ & TYPE_MASK, start + 4, stop
        start = (stop + 3) & ~3


def pack(type_: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """One message, padded to the alignment of the next."""
    length = 16 + len(payload)
    return HEADER.pack(length, type_, flags, sequence, 0) + payload + bytes(-length & 3)


def pack_attribute(type_: int, payload: bytes) -> bytes:
    """One attribute, padded to the alignment of the next."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(payload), type_) + payload + bytes(-len(payload) & 3)


def pack_nested(type_: int, *packed: bytes) -> bytes:
    """One attribute that consists of others, each as ``pack_attribute`` makes it."""
    return pack_attribute(type_ | NLA_F_NESTED, b"".join(packed))


def error_of(data: bytes, message: NetlinkMessage) -> int:
    """The errno (0: none) that an NLMSG_ERROR or NLMSG_DONE message carries."""
    if message.end - message.start < 4:
        return 0
    (code,) = ERROR.unpack_from(data, message.start)
    return -int(code)


def extended_ack(data: bytes, message: NetlinkMessage) -> str:
    """The kernel's own words in an NLMSG_ERROR, or "". The socket must have NETLINK_CAP_ACK."""
    if not message.flags & NLM_F_ACK_TLVS:
        return ""
    # The header of our own message follows the errno; NETLINK_CAP_ACK leaves its payload out.
    start = message.start + ERROR.size + HEADER.size
    for type_, at, stop in attributes(data, start, message.end):
        if type_ == NLMSGERR_ATTR_MSG:
            return data[at:stop].rstrip(b"\0").decode(errors="replace")
    return ""


def open_socket(protocol: int, *, receive_buffer_bytes: int | None = None, groups: int = 0) -> socket.socket:
    """A non-blocking socket of the current network namespace, bound to a port that the kernel chooses.

    ``groups`` is a bit mask of multicast groups. Raises OSError.
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    try:
        if receive_buffer_bytes is not None:
            try:
                sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_buffer_bytes)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        sock.bind((0, groups))
    except BaseException:
        sock.close()
        raise
    return sock
