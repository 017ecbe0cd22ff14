# SPDX-License-Identifier: GPL-2.0-only
"""bpf(2) through libbpf, for what the service does itself: it has no compiler in it, unlike BCC.

Descriptors are plain ints, close-on-exec; whoever gets one closes it. Every failure is a
KernelRefused with the errno.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pm.errors import KernelRefused, SystemUnfit

PROG_TYPE_SOCK_OPS = 13
ATTACH_CGROUP_SOCK_OPS = 3
_LOG_SIZE = 1 << 20


class MapSpec(NamedTuple):
    """What makes two maps interchangeable: enum bpf_map_type, sizes in bytes, BPF_F_* flags."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


class ProgramRefused(KernelRefused):
    """The verifier's refusal; ``log`` is all it said, "" where it was not asked (no privileges)."""

    def __init__(self, name: str, errno: int, log: str) -> None:
        self.log = log
        lines = [line for line in log.splitlines() if not line.startswith("processed ")]
        super().__init__(f"load BPF program {name}", errno, lines[-1] if lines else "")


class LinkInfo(NamedTuple):
    """A cgroup link: ``cgroup_id`` is 0 once the cgroup has gone."""

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
    """libbpf.so.1. Raises SystemUnfit where it is not installed."""
    try:
        lib = ctypes.CDLL("libbpf.so.1")
    except OSError as e:
        raise SystemUnfit("libbpf.so.1 is not installed", "apt install libbpf1") from e
    lib.bpf_map_create.argtypes = [c_int, c_char_p, c_uint32, c_uint32, c_uint32, POINTER(_MapCreateOptions)]
    lib.bpf_prog_load.argtypes = [c_int, c_char_p, c_char_p, c_char_p, c_size_t, POINTER(_ProgramLoadOptions)]
    lib.bpf_map_lookup_elem.argtypes = [c_int, c_void_p, c_void_p]
    lib.bpf_map_lookup_and_delete_elem.argtypes = [c_int, c_void_p, c_void_p]
    lib.bpf_link_create.argtypes = [c_int, c_int, c_int, c_void_p]
    lib.bpf_link_update.argtypes = [c_int, c_int, c_void_p]
    lib.bpf_obj_pin.argtypes = [c_int, c_char_p]
    lib.bpf_obj_get.argtypes = [c_char_p]
    lib.bpf_obj_get_info_by_fd.argtypes = [c_int, c_void_p, POINTER(c_uint32)]
    lib.bpf_prog_query.argtypes = [c_int, c_int, c_uint32, POINTER(c_uint32), c_void_p, POINTER(c_uint32)]
    return lib


def create_map(name: str, spec: MapSpec) -> int:
    options = _MapCreateOptions(size=ctypes.sizeof(_MapCreateOptions), map_flags=spec.flags)
    lib = library()
    return _checked(
        lib.bpf_map_create(
            spec.type, _name(name), spec.key_size, spec.value_size, spec.max_entries, byref(options)
        ),
        f"create BPF map {name}",
    )


def load_sock_ops(name: str, instructions: bytes) -> int:
    """A program of type BPF_PROG_TYPE_SOCK_OPS. Raises ProgramRefused."""
    options = _ProgramLoadOptions(
        size=ctypes.sizeof(_ProgramLoadOptions), expected_attach_type=ATTACH_CGROUP_SOCK_OPS
    )
    count = len(instructions) // 8
    load = library().bpf_prog_load
    fd = load(PROG_TYPE_SOCK_OPS, _name(name), b"GPL", instructions, count, byref(options))
    if fd >= 0:
        return int(fd)
    log = ctypes.create_string_buffer(_LOG_SIZE)
    options.log_level, options.log_size, options.log = 1, _LOG_SIZE, ctypes.addressof(log)
    fd = load(PROG_TYPE_SOCK_OPS, _name(name), b"GPL", instructions, count, byref(options))
    if fd < 0:
        raise ProgramRefused(name, -fd, log.value.decode(errors="replace"))
    return int(fd)


def lookup(fd: int, key: Any, value: Any) -> bool:
    """Fills ``value``, False where the key is not there; both are ctypes objects of the map's sizes.

    A per-CPU map fills an array of ``possible_cpus()`` values.
    """
    return int(library().bpf_map_lookup_elem(fd, byref(key), byref(value))) == 0


def possible_cpus() -> int:
    return _checked(library().libbpf_num_possible_cpus(), "count CPUs")


def map_spec(fd: int) -> MapSpec:
    info = _info(fd, _MapInfo())
    return MapSpec(info.type, info.key_size, info.value_size, info.max_entries, info.map_flags)


def link_cgroup(program: int, cgroup: int) -> int:
    """Attach a sock_ops program to a cgroup directory's descriptor; other programs stay.

    The link lasts as long as a descriptor of it or a pin.
    """
    return _checked(
        library().bpf_link_create(program, cgroup, ATTACH_CGROUP_SOCK_OPS, None), "attach to cgroup"
    )


def update_link(link: int, program: int) -> None:
    """Put another program in its place, in one step: no connection goes by unseen."""
    _checked(library().bpf_link_update(link, program, None), "replace program on cgroup")


def link_info(link: int) -> LinkInfo:
    info = _info(link, _LinkInfo())
    return LinkInfo(info.prog_id, info.cgroup_id)


def attached_programs(cgroup: int) -> tuple[int, ...]:
    """Ids of the sock_ops programs attached to a cgroup directory's descriptor itself, anybody's."""
    count = c_uint32(64)
    ids = (c_uint32 * count.value)()
    query = library().bpf_prog_query
    _checked(query(cgroup, ATTACH_CGROUP_SOCK_OPS, 0, None, ids, byref(count)), "query cgroup")
    return tuple(ids[: count.value])


def pin(fd: int, path: Path) -> None:
    _checked(library().bpf_obj_pin(fd, bytes(path)), f"pin {path}")


def open_pin(path: Path) -> int:
    return _checked(library().bpf_obj_get(bytes(path)), f"open {path}")


def _name(name: str) -> bytes:
    """BPF_OBJ_NAME_LEN is 16, the final NUL included."""
    return name.encode()[:15]


def _info(fd: int, info: Any) -> Any:
    size = c_uint32(ctypes.sizeof(info))
    _checked(library().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), "query BPF object")
    return info


def _checked(result: int, action: str) -> int:
    """libbpf returns -errno."""
    if result < 0:
        raise KernelRefused(action, -result)
    return result
