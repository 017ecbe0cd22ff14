# SPDX-License-Identifier: Apache-2.0
"""Many messages of a socket by one system call: recvmmsg(2), which Python does not have."""

from __future__ import annotations

import ctypes
import os

AT_ONCE = 64
MESSAGE_BYTES = 2048  # an event has 200 at most
MSG_DONTWAIT = 0x40


class _Vector(ctypes.Structure):
    """struct iovec"""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vectors_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint32))


class ManyMessages:
    """Room for ``AT_ONCE`` messages; what is longer than ``MESSAGE_BYTES`` is cut."""

    def __init__(self) -> None:
        self._buffer = bytearray(AT_ONCE * MESSAGE_BYTES)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        self._vectors = (_Vector * AT_ONCE)(
            *(_Vector(base + n * MESSAGE_BYTES, MESSAGE_BYTES) for n in range(AT_ONCE))
        )
        self._messages = (_Message * AT_ONCE)(
            *(_Message(_Header(vectors=ctypes.pointer(v), vectors_length=1)) for v in self._vectors)
        )
        self._call = ctypes.CDLL(None, use_errno=True).recvmmsg

    def receive(self, fd: int) -> list[bytes]:
        """The messages that wait, ``AT_ONCE`` at most. Raises OSError, BlockingIOError where none does."""
        count = self._call(fd, self._messages, AT_ONCE, MSG_DONTWAIT, None)
        if count < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        view = memoryview(self._buffer)
        starts = range(0, count * MESSAGE_BYTES, MESSAGE_BYTES)
        return [bytes(view[at : at + m.length]) for at, m in zip(starts, self._messages, strict=False)]
