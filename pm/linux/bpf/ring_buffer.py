# SPDX-License-Identifier: Apache-2.0
"""Reads a BPF ring buffer (BPF_MAP_TYPE_RINGBUF), a bounded number of records at a time."""

from __future__ import annotations

import ctypes
import errno

from pm.errors import KernelRefused
from pm.linux.bpf import libbpf

_OnRecord = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class RingBuffer:
    """``fd`` is the map's descriptor, which stays its owner's: it is readable while records wait.

    Raises KernelRefused where the kernel does not map it.
    """

    def __init__(self, fd: int) -> None:
        self._records: list[bytes] = []
        self._limit = 0
        self._on_record = _OnRecord(self._take)  # kept: libbpf has a pointer to it
        library = ctypes.CDLL(libbpf.NAME, use_errno=True)
        library.ring_buffer__new.argtypes = [ctypes.c_int, _OnRecord, ctypes.c_void_p, ctypes.c_void_p]
        library.ring_buffer__new.restype = ctypes.c_void_p
        library.ring_buffer__consume.argtypes = [ctypes.c_void_p]
        library.ring_buffer__free.argtypes = [ctypes.c_void_p]
        library.ring_buffer__free.restype = None
        self._library = library
        self._ring = library.ring_buffer__new(fd, self._on_record, None, None)
        if not self._ring:
            raise KernelRefused("map a BPF ring buffer", ctypes.get_errno())

    def read(self, limit: int) -> list[bytes]:
        """Records that wait, oldest first, at most ``limit``; never blocks. Raises KernelRefused."""
        self._records, self._limit = [], limit
        result = self._library.ring_buffer__consume(self._ring)
        if result < 0 and result != -errno.ECANCELED:
            raise KernelRefused("read a BPF ring buffer", -result)
        return self._records

    def close(self) -> None:
        self._library.ring_buffer__free(self._ring)

    def _take(self, context: int, data: int, size: int) -> int:
        """What libbpf calls for each record. It takes a negative answer as the end, after this record."""
        self._records.append(ctypes.string_at(data, size))
        return 0 if len(self._records) < self._limit else -errno.ECANCELED
