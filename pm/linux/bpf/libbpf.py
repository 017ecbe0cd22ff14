# SPDX-License-Identifier: Apache-2.0
"""bpf(2) through libbpf, for what the service does itself: it has no compiler in it, unlike BCC.

Descriptors are plain ints, close-on-exec; whoever gets one closes it. Every failure is a
KernelRefused with the errno.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from collections.abc import Iterator
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pm.errors import KernelRefused, SystemUnfit
from pm.linux.bpf.verifier_log import reason_in

NAME = "libbpf.so.1"
PROG_TYPE_SOCK_OPS = 13
MAP_TYPE_SK_STORAGE = 24
ATTACH_CGROUP_SOCK_OPS = 3
_NOEXIST = 1  # BPF_NOEXIST
ENOMEM_RETRIES = 20
ENOMEM_INTERVAL_S = 0.005
_LOG_SIZE = 1 << 20
_BTF_KEY, _BTF_VALUE = 1, 2  # type ids of what _describe_storage() describes


class MapSpec(NamedTuple):
    """What makes two maps interchangeable: enum bpf_map_type, sizes in bytes, BPF_F_* flags."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


class ProgramRefused(KernelRefused):
    """The verifier refused a program.

    ``log`` is the verifier's whole log, "" where the kernel refused before it ran (no privileges).
    """

    def __init__(self, name: str, errno: int, log: str) -> None:
        self.log = log
        super().__init__(f"load BPF program {name}", errno, reason_in(log))


class LinkInfo(NamedTuple):
    """A cgroup link: ``cgroup_id`` is 0 once the cgroup is gone."""

    program_id: int
    cgroup_id: int


class _MapCreateOptions(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
        ("map_extra", c_uint64),
        ("numa_node", c_uint32),
        ("map_ifindex", c_uint32),
    ]


class _ProgramLoadOptions(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("attempts", c_int),
        ("expected_attach_type", c_int),
        ("prog_btf_fd", c_uint32),
        ("prog_flags", c_uint32),
        ("prog_ifindex", c_uint32),
        ("kern_version", c_uint32),
        ("attach_btf_id", c_uint32),
        ("attach_prog_fd", c_uint32),
        ("attach_btf_obj_fd", c_uint32),
        ("fd_array", POINTER(c_int)),
        ("func_info", c_void_p),
        ("func_info_count", c_uint32),
        ("func_info_record_size", c_uint32),
        ("line_info", c_void_p),
        ("line_info_count", c_uint32),
        ("line_info_record_size", c_uint32),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log", c_void_p),
    ]


class _MapInfo(Structure):
    """The start of struct bpf_map_info."""

    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
        ("name", c_char * 16),
    ]


class _LinkInfo(Structure):
    """The start of struct bpf_link_info, of a cgroup link."""

    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("prog_id", c_uint32),
        ("cgroup_id", c_uint64),
        ("attach_type", c_uint32),
    ]


@cache
def library() -> ctypes.CDLL:
    """libbpf. Raises SystemUnfit where it is not installed."""
    try:
        lib = ctypes.CDLL(NAME)
    except OSError as e:
        raise SystemUnfit(f"{NAME} is not installed", "apt install libbpf1") from e
    lib.bpf_map_create.argtypes = [c_int, c_char_p, c_uint32, c_uint32, c_uint32, POINTER(_MapCreateOptions)]
    lib.bpf_prog_load.argtypes = [c_int, c_char_p, c_char_p, c_char_p, c_size_t, POINTER(_ProgramLoadOptions)]
    lib.bpf_map_lookup_elem.argtypes = [c_int, c_void_p, c_void_p]
    lib.bpf_map_lookup_and_delete_elem.argtypes = [c_int, c_void_p, c_void_p]
    lib.bpf_map_update_elem.argtypes = [c_int, c_void_p, c_void_p, c_uint64]
    lib.bpf_map_delete_elem.argtypes = [c_int, c_void_p]
    lib.bpf_map_get_next_key.argtypes = [c_int, c_void_p, c_void_p]
    lib.bpf_btf_load.argtypes = [c_void_p, c_size_t, c_void_p]
    lib.bpf_link_create.argtypes = [c_int, c_int, c_int, c_void_p]
    lib.bpf_link_update.argtypes = [c_int, c_int, c_void_p]
    lib.bpf_obj_pin.argtypes = [c_int, c_char_p]
    lib.bpf_obj_get.argtypes = [c_char_p]
    lib.bpf_obj_get_info_by_fd.argtypes = [c_int, c_void_p, POINTER(c_uint32)]
    return lib


def create_map(name: str, spec: MapSpec) -> int:
    """Create a map and return its descriptor. Raises KernelRefused."""
    options = _MapCreateOptions(size=ctypes.sizeof(_MapCreateOptions), map_flags=spec.flags)
    lib = library()
    btf = _describe_storage(spec.value_size) if spec.type == MAP_TYPE_SK_STORAGE else 0
    if btf:
        options.btf_fd, options.btf_key_type_id, options.btf_value_type_id = btf, _BTF_KEY, _BTF_VALUE
    try:
        sizes = spec.key_size, spec.value_size, spec.max_entries
        made = lib.bpf_map_create(spec.type, _name(name), *sizes, byref(options))
        return _checked(made, f"create BPF map {name}")
    finally:
        if btf:
            os.close(btf)


def _describe_storage(value_size: int) -> int:
    """Descriptor of the BTF that the kernel requires for sk_storage: key an int, value an array of ints.

    Layout: include/uapi/linux/btf.h.
    """
    integer = struct.pack("=IIII", 0, 1 << 24, 4, 32)  # type 1: 4 bytes, 32 bits
    array = struct.pack("=IIIIII", 0, 3 << 24, 0, _BTF_KEY, _BTF_KEY, value_size // 4)  # type 2
    types, strings = integer + array, b"\0"
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    blob = header + types + strings
    return _checked(library().bpf_btf_load(blob, len(blob), None), "describe sk_storage")


def load_sock_ops(name: str, instructions: bytes) -> int:
    """A program of type BPF_PROG_TYPE_SOCK_OPS. Raises ProgramRefused."""
    return load_program(name, PROG_TYPE_SOCK_OPS, ATTACH_CGROUP_SOCK_OPS, instructions)


def load_program(name: str, kind: int, attach_type: int, instructions: bytes) -> int:
    """Load a program of any type and return its descriptor. Raises ProgramRefused."""
    options = _ProgramLoadOptions(size=ctypes.sizeof(_ProgramLoadOptions), expected_attach_type=attach_type)
    arguments = (kind, _name(name), b"GPL", instructions, len(instructions) // 8, byref(options))
    fd = library().bpf_prog_load(*arguments)
    if fd >= 0:
        return int(fd)
    log = ctypes.create_string_buffer(_LOG_SIZE)
    options.log_level, options.log_size, options.log = 1, _LOG_SIZE, ctypes.addressof(log)
    fd = library().bpf_prog_load(*arguments)
    if fd < 0:
        raise ProgramRefused(name, -fd, log.value.decode(errors="replace"))
    return int(fd)


def lookup(fd: int, key: Any, value: Any) -> bool:
    """Fill ``value`` and return True, or return False where the map does not have the key.

    Both are ctypes objects of the map's sizes. A per-CPU map fills an array of ``possible_cpus()`` values.
    """
    return int(library().bpf_map_lookup_elem(fd, byref(key), byref(value))) == 0


def read_counter(fd: int, index: int) -> int:
    """The sum over all CPUs of a 64-bit counter in a per-CPU array; 0 where there is no such index."""
    values = (c_uint64 * possible_cpus())()
    lookup(fd, c_uint32(index), values)
    return sum(values)


def update(fd: int, key: bytes, value: bytes) -> None:
    """Add or replace an entry; sizes are the map's. Raises KernelRefused.

    BPF_F_NO_PREALLOC maps allocate from a small cache that an interrupt refills; under User Mode Linux
    it comes with the next tick. That is why ENOMEM is tried again.
    """
    for _ in range(ENOMEM_RETRIES):
        result = library().bpf_map_update_elem(fd, key, value, 0)
        if result != -errno.ENOMEM:
            break
        time.sleep(ENOMEM_INTERVAL_S)
    _checked(result, "write BPF map")


def insert(fd: int, key: bytes, value: bytes) -> bool:
    """Add an entry and return True, or return False where the map has the key. Raises KernelRefused."""
    result = library().bpf_map_update_elem(fd, key, value, _NOEXIST)
    if result == -errno.EEXIST:
        return False
    _checked(result, "write BPF map")
    return True


def delete(fd: int, key: bytes) -> None:
    """Delete an entry. No error where the map does not have the key."""
    library().bpf_map_delete_elem(fd, key)


def keys(fd: int, size: int) -> Iterator[bytes]:
    """The keys of a map, ``size`` bytes each. Nobody else may delete entries meanwhile."""
    key, following = None, ctypes.create_string_buffer(size)
    while library().bpf_map_get_next_key(fd, key, following) == 0:
        key = following.raw
        yield key


def possible_cpus() -> int:
    """How many values an entry of a per-CPU map has."""
    return _checked(library().libbpf_num_possible_cpus(), "count CPUs")


def describe_map(fd: int) -> tuple[str, MapSpec]:
    """The kernel's name of an open map, and its spec. Raises KernelRefused."""
    info = _info(fd, _MapInfo())
    spec = MapSpec(info.type, info.key_size, info.value_size, info.max_entries, info.map_flags)
    return info.name.decode(errors="replace"), spec


def link_cgroup(program: int, cgroup: int) -> int:
    """A link to a cgroup directory's descriptor; it lasts as long as a descriptor of it or a pin."""
    return create_link(program, cgroup, ATTACH_CGROUP_SOCK_OPS, "attach to cgroup")


def create_link(program: int, target: int, attach_type: int, action: str) -> int:
    """A link to any target. Raises KernelRefused."""
    return _checked(library().bpf_link_create(program, target, attach_type, None), action)


def update_link(link: int, program: int) -> None:
    """Replace a link's program in one step: no connection is missed in between. Raises KernelRefused."""
    _checked(library().bpf_link_update(link, program, None), "replace program on cgroup")


def link_info(link: int) -> LinkInfo:
    """Which program a link attaches to which cgroup. Raises KernelRefused."""
    info = _info(link, _LinkInfo())
    return LinkInfo(info.prog_id, info.cgroup_id)


def pin(fd: int, path: Path) -> None:
    """Pin a map or link at a path on a bpffs. Raises KernelRefused."""
    _checked(library().bpf_obj_pin(fd, bytes(path)), f"pin {path}")


def open_pin(path: Path) -> int:
    """A descriptor of a pinned map or link. Raises KernelRefused."""
    return _checked(library().bpf_obj_get(bytes(path)), f"open {path}")


def _name(name: str) -> bytes:
    """A name as the kernel takes it: BPF_OBJ_NAME_LEN is 16, the final NUL included."""
    return name.encode()[:15]


def _info(fd: int, info: Any) -> Any:
    size = c_uint32(ctypes.sizeof(info))
    _checked(library().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), "query BPF object")
    return info


def _checked(result: int, action: str) -> int:
    """The result of a libbpf function, which returns -errno on failure. Raises KernelRefused."""
    if result < 0:
        raise KernelRefused(action, -result)
    return result
