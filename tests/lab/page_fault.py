# SPDX-License-Identifier: Apache-2.0
"""Memory whose first use waits until the test allows it: a system call that reads it sleeps meanwhile."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from typing import Self

SYS_USERFAULTFD = 323  # x86-64
API, FEATURES, MISSING = 0xAA, 0, 1
# _IOWR(0xAA, ...) of linux/userfaultfd.h
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04


class PageFault:
    """``with PageFault() as fault:`` ``fault.memory`` is a page of zeros, there after ``fault.end()``."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, mmap.PAGESIZE)
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "userfaultfd")
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        fcntl.ioctl(self._descriptor, UFFDIO_API, bytearray(struct.pack("=QQQ", API, FEATURES, 0)))
        registered = struct.pack("=QQQQ", self._address, mmap.PAGESIZE, MISSING, 0)
        fcntl.ioctl(self._descriptor, UFFDIO_REGISTER, bytearray(registered))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def waits(self) -> bool:
        """Whether somebody waits for the page."""
        os.set_blocking(self._descriptor, False)
        try:
            return bool(os.read(self._descriptor, 32))
        except BlockingIOError:
            return False

    def end(self) -> None:
        """The page is there."""
        if self._descriptor < 0:
            return
        zero = struct.pack("=QQQq", self._address, mmap.PAGESIZE, 0, 0)
        fcntl.ioctl(self._descriptor, UFFDIO_ZEROPAGE, bytearray(zero))
        os.close(self._descriptor)
        self._descriptor = -1
