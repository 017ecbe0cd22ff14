# SPDX-License-Identifier: Apache-2.0
"""IP addresses between the kernel's bytes and canonical text, with one shared string per address."""

from __future__ import annotations

from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from pm.model import family_of

V4_MAPPED = bytes(10) + b"\xff\xff"


@lru_cache(maxsize=65536)
def ip_text(packed: bytes) -> str:
    """Text of 4 or 16 bytes in network order; a v4-mapped address becomes IPv4."""
    if len(packed) == 16:
        if not packed.startswith(V4_MAPPED):
            return inet_ntop(AF_INET6, packed)
        # Through the cache once more: the same string object as the plain IPv4 address.
        return ip_text(packed[12:])
    return inet_ntop(AF_INET, packed)


@lru_cache(maxsize=65536)
def ip_bytes(ip: str) -> bytes:
    """4 or 16 bytes in network order. Raises OSError for text that is not an address."""
    return inet_pton(AF_INET if family_of(ip) == 4 else AF_INET6, ip)


def packed_ip(ip: str) -> bytes:
    """16 bytes in network order, an IPv4 address v4-mapped. Raises OSError like ``ip_bytes``."""
    packed = ip_bytes(ip)
    return V4_MAPPED + packed if len(packed) == 4 else packed
