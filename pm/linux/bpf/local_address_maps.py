# SPDX-License-Identifier: Apache-2.0
"""What the path managers' programs know of local addresses: which may be used, and which are there.

Both the service and the programs write these maps (docs/decisions/0039).
"""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from pm.linux.bpf import libbpf
from pm.linux.bpf.objects import BpfObject
from pm.linux.ip import ip_text, packed_ip
from pm.model import LocalAddress

LOCALS = 16
UP_ADDRESSES_MAX = 16384
INTERFACES_MAX = 4096
ADDRESS_BACKUP = 1  # BPF_MPTCP_ADDR_BACKUP
SLOT_ALLOWED = 1
SLOT_LOCK_S = 1.0
INTERFACE_USABLE, INTERFACE_BACKUP, INTERFACE_LINK_LOCAL = 1, 2, 4  # enum interface_flag

# struct bpf_mptcp_addr: family, port, ip4, ip6, scope_id, id, ifindex, flags
_ADDRESS = struct.Struct("=HH4x16sIIII")
# struct up: interface, generation
_UP = struct.Struct("=II")
# struct interface: flags, generation, kinds
_INTERFACE = struct.Struct("=III")
# struct look: whether to follow, generation; what follows is the programs'
_LOOK = struct.Struct("=II")
_SLOT, _TIME = struct.Struct("=I"), struct.Struct("=Q")


class LocalAddressMaps:
    """Part of ``PathManagerAttachments``, which has the maps."""

    _maps: dict[str, int]
    _program: BpfObject

    def read_locals(self) -> list[bytes]:
        """The entries of local_addr_map. An address that is gone keeps its slot."""
        slots = []
        value = ctypes.create_string_buffer(_ADDRESS.size)
        for slot in range(LOCALS):
            libbpf.lookup(self._maps["local_addr_map"], ctypes.c_uint32(slot), value)
            slots.append(value.raw)
        return slots

    @contextmanager
    def giving_slots(self) -> Iterator[None]:
        """Meanwhile no program gives out slots: each has them for microseconds, or comes back later.

        Raises KernelRefused.
        """
        fd, key = self._maps["slot_lock"], _SLOT.pack(0)
        deadline = time.monotonic() + SLOT_LOCK_S  # whoever has it for longer is dead
        while not libbpf.insert(fd, key, _TIME.pack(time.monotonic_ns())) and time.monotonic() < deadline:
            time.sleep(SLOT_LOCK_S / 1000)
        try:
            yield
        finally:
            libbpf.delete(fd, key)

    def looked(self) -> bool:
        """Whether the programs have looked at the host's addresses: which are there is theirs to write."""
        return bool(self._look()[1])

    def follow(self) -> None:
        """Let the programs look: what they need to know is written. Raises KernelRefused."""
        value = self._look_value()
        follow, generation = _LOOK.unpack_from(value)
        if not follow:
            _LOOK.pack_into(value, 0, 1, generation)
            libbpf.update(self._maps["looks"], _SLOT.pack(0), value.raw)

    def _look(self) -> tuple[int, int]:
        follow, generation = _LOOK.unpack_from(self._look_value())
        return follow, generation

    def _look_value(self) -> ctypes.Array[ctypes.c_char]:
        value = ctypes.create_string_buffer(self._program.maps["looks"][1].value_size)
        libbpf.lookup(self._maps["looks"], ctypes.c_uint32(0), value)
        return value

    def write_interfaces(self, wanted: Mapping[int, int]) -> None:
        """The interfaces whose addresses may be used, with their flags, and no others.

        Raises KernelRefused.
        """
        fd, value = self._maps["interfaces"], ctypes.create_string_buffer(_INTERFACE.size)
        for key in list(libbpf.keys(fd, _SLOT.size)):
            if _SLOT.unpack(key)[0] not in wanted:
                libbpf.delete(fd, key)
        for ifindex, flags in list(wanted.items())[:INTERFACES_MAX]:
            found = libbpf.lookup(fd, ctypes.c_uint32(ifindex), value)
            if not found or _INTERFACE.unpack(value)[0] != flags:
                libbpf.update(fd, _SLOT.pack(ifindex), _INTERFACE.pack(flags, 0, 0))

    def write_local(self, slot: int, entry: bytes) -> None:
        """Write a ``local_entry`` to a slot of local_addr_map. Raises KernelRefused."""
        libbpf.update(self._maps["local_addr_map"], _SLOT.pack(slot), entry)

    def write_up(self, entries: Mapping[bytes, bytes]) -> None:
        """Add entries to up_addresses: those that are there are the programs'. Raises KernelRefused."""
        for key, value in entries.items():
            libbpf.insert(self._maps["up_addresses"], key, value)


def slot_of(entry: bytes) -> tuple[str, int]:
    """(address, id) of an entry of local_addr_map; ("", 0) where it is free. Pure."""
    _, _, packed, _, address_id, _, _ = _ADDRESS.unpack(entry)
    return (ip_text(packed), address_id) if any(packed) else ("", 0)


def same_slot(entry: bytes, other: bytes) -> bool:
    """Whether two entries of local_addr_map differ in nothing but whether the address is there. Pure."""
    return entry[2:] == other[2:]


def local_entry(ip: str, address_id: int, address: LocalAddress | None, *, allowed: bool = True) -> bytes:
    """An entry of local_addr_map. Without ``address`` it is unusable, and only keeps the id for the IP.

    ``allowed``: the rules admit it once it is there.
    """
    scope = SLOT_ALLOWED if allowed else 0
    if address is None:
        return _ADDRESS.pack(0, 0, packed_ip(ip), scope, address_id, 0, 0)
    flags = ADDRESS_BACKUP if address.backup else 0
    return _ADDRESS.pack(socket.AF_INET6, 0, packed_ip(ip), scope, address_id, address.ifindex, flags)


def interface_entries(admitted: Mapping[int, bool], *, link_local: bool) -> dict[int, int]:
    """What interfaces has: flags by index. ``admitted``: whether subflows over it are backups. Pure."""
    base = INTERFACE_USABLE | (INTERFACE_LINK_LOCAL if link_local else 0)
    return {ifindex: base | (INTERFACE_BACKUP if backup else 0) for ifindex, backup in admitted.items()}


def up_entries(up: Collection[str], interfaces: Mapping[str, int]) -> dict[bytes, bytes]:
    """What up_addresses has for these addresses. Pure.

    Of more than the map has room for, those beyond are as addresses that were never up: their
    sessions keep what they have.
    """
    known = sorted(ip for ip in up if interfaces.get(ip))
    return {packed_ip(ip): _UP.pack(interfaces[ip], 0) for ip in known[:UP_ADDRESSES_MAX]}
