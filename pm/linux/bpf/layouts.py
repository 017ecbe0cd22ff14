# SPDX-License-Identifier: Apache-2.0
"""What the classifier and the service share; bpf_pm/include has the same (test_layouts.py)."""

from __future__ import annotations

import ctypes
import struct
from enum import IntEnum

# 64-bit numbers that the loader replaces in a compiled program (bpf_pm/include/loader_constants.h).
NETNS_COOKIE_PLACEHOLDER = 0x6D707463705F6E73
POLICY_ID_PLACEHOLDER = 0x6D707463705F6964

KEEPALIVE = struct.Struct("=III")
"""``struct keepalive`` (bpf_pm/include/keepalive.h): idle and interval in seconds, count."""
POLICY = struct.Struct("=Q")
"""The id of a policy, as key of a map."""
FINAL_FIGURES = struct.Struct("=16s16sHHIQQI4x")
"""``struct final_figures`` (bpf_pm/include/final_figures.h)."""
_KEY = struct.Struct("=16s16sHH")


class SessionKey(ctypes.Structure):
    """``struct session_key``: addresses in network order (IPv4 is ::ffff:a.b.c.d), ports in host order."""

    _fields_ = [
        ("local", ctypes.c_uint8 * 16),
        ("remote", ctypes.c_uint8 * 16),
        ("local_port", ctypes.c_uint16),
        ("remote_port", ctypes.c_uint16),
    ]

    def fill(self, local: bytes, local_port: int, remote: bytes, remote_port: int) -> None:
        """Set all fields at once: four times as fast as one by one."""
        _KEY.pack_into(self, 0, local, remote, local_port, remote_port)


class SessionValue(ctypes.Structure):
    """``struct session_value``: the socket's cookie (SO_COOKIE), its policy's id, its device and its mark."""

    _fields_ = [
        ("cookie", ctypes.c_uint64),
        ("policy", ctypes.c_uint64),
        ("device", ctypes.c_uint32),
        ("mark", ctypes.c_uint32),
    ]


class Counter(IntEnum):
    """``enum counter``: the index into the per-CPU array ``counters``."""

    CLASSIFIED = 0
    FAILED = 1
    FINALS_LOST = 2
