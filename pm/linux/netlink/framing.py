# SPDX-License-Identifier: GPL-2.0-only
"""The netlink framing that hand-packed protocols share (include/uapi/linux/netlink.h)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
SO_RCVBUFFORCE = 33

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
ERROR = struct.Struct("=i")
TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


class Message(NamedTuple):
    """A message within a buffer; its payload is ``data[start:end]``."""

    type: int
    flags: int
    sequence: int
    start: int
    end: int


def message_at(data: bytes, offset: int) -> Message | None:
    """None where there is none, or it is truncated."""
    if offset + 16 > len(data):
        return None
    length, type_, flags, sequence, _ = HEADER.unpack_from(data, offset)
    end = offset + length
    if length < 16 or end > len(data):
        return None
    return Message(type_, flags, sequence, offset + 16, end)


def messages(data: bytes) -> Iterator[Message]:
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


def error_of(data: bytes, message: Message) -> int:
    """The errno (0: none) that an NLMSG_ERROR or NLMSG_DONE message carries."""
    if message.end - message.start < 4:
        return 0
    (code,) = ERROR.unpack_from(data, message.start)
    return -int(code)


def open_socket(protocol: int, receive_buffer_bytes: int, groups: int = 0) -> socket.socket:
    """A non-blocking socket of the current network namespace, bound to a port of the kernel's choice."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    try:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_buffer_bytes)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        sock.bind((0, groups))
    except BaseException:
        sock.close()
        raise
    return sock
