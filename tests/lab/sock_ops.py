# SPDX-License-Identifier: Apache-2.0
"""The sock_ops programs of tests, from the C files in ``programs``, on cgroups; and what is in their maps."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from pm.linux.bpf import libbpf
from pm.linux.bpf.objects import BpfObject, compile_object

PROGRAMS = Path(__file__).parent / "programs"
_ALLOW_OVERRIDE, _ALLOW_MULTI = 1, 2  # BPF_F_ALLOW_*
LOG = Path("/dev/stderr")
"""Where the compiler's and the verifier's complaints go: pytest shows them with the failed test."""


@cache
def compiled(source: Path, cflags: tuple[str, ...] = ()) -> BpfObject:
    return asyncio.run(compile_object(source, log_file=LOG, cflags=cflags))


def link(program: int, cgroup: Path) -> int:
    """Attach a program (a descriptor) to a cgroup (a directory) until the link, a descriptor, is closed."""
    directory = os.open(cgroup, os.O_RDONLY)
    try:
        return libbpf.link_cgroup(program, directory)
    finally:
        os.close(directory)


@contextmanager
def attached_without_link(program: SockOpsProgram, cgroup: Path, *, override: bool = False) -> Iterator[None]:
    """Attached by BPF_PROG_ATTACH; with ``override``, programs of inner cgroups run instead of it."""
    lib, directory = libbpf.library(), os.open(cgroup, os.O_RDONLY)
    where = directory, libbpf.ATTACH_CGROUP_SOCK_OPS
    try:
        flags = ctypes.c_uint(_ALLOW_OVERRIDE if override else _ALLOW_MULTI)
        assert lib.bpf_prog_attach(program.descriptor, *where, flags) == 0
        yield
        assert lib.bpf_prog_detach2(program.descriptor, *where) == 0
    finally:
        os.close(directory)


class SockOpsProgram:
    """The program of programs/NAME.c whose function is called NAME, on as many cgroups as wanted."""

    def __init__(self, name: str) -> None:
        module = compiled(PROGRAMS / f"{name}.c")
        self._specs = {name: spec for name, (_, spec) in module.maps.items()}
        self._maps = {name: libbpf.create_map(name, spec) for name, spec in self._specs.items()}
        self.descriptor = module.load(name, maps=self._maps, constants={}, log_file=LOG)
        self._links: dict[Path, int] = {}

    def attach(self, cgroup: Path) -> None:
        self._links[cgroup] = link(self.descriptor, cgroup)

    def replace(self, cgroup: Path, other: SockOpsProgram) -> None:
        """Another program takes its place on the cgroup; the link stays, and this one's to detach."""
        libbpf.update_link(self._links[cgroup], other.descriptor)

    def detach(self, cgroup: Path | None = None) -> None:
        """Detach from the cgroup, or from all; without effect where the cgroup has gone."""
        for path in list(self._links) if cgroup is None else [cgroup]:
            os.close(self._links.pop(path))

    def write(self, array: str, index: int, value: bytes) -> None:
        libbpf.update(self._maps[array], index.to_bytes(4, sys.byteorder), value)

    def read(self, array: str, index: int) -> bytes:
        value = ctypes.create_string_buffer(self._specs[array].value_size)
        assert libbpf.lookup(self._maps[array], ctypes.c_uint32(index), value)
        return value.raw

    def integers(self, array: str) -> list[int]:
        """All values of an array of signed integers."""
        entries = range(self._specs[array].max_entries)
        return [int.from_bytes(self.read(array, i), sys.byteorder, signed=True) for i in entries]

    def table(self, name: str) -> dict[int, int]:
        """The entries of a hash whose keys and values are u32."""
        found = {}
        value = ctypes.c_uint32()
        for key in list(libbpf.keys(self._maps[name], 4)):
            number = int.from_bytes(key, sys.byteorder)
            if libbpf.lookup(self._maps[name], ctypes.c_uint32(number), value):
                found[number] = value.value
        return found

    def empty(self, name: str) -> None:
        """Delete all entries of a hash whose keys are u32."""
        for key in list(libbpf.keys(self._maps[name], 4)):
            libbpf.delete(self._maps[name], key)

    def clear(self, array: str) -> None:
        """Set all values to zero."""
        spec = self._specs[array]
        for i in range(spec.max_entries):
            self.write(array, i, bytes(spec.value_size))

    def pop(self, queue: str) -> bytes:
        """Take the oldest value out of a queue; empty where there is none."""
        value = ctypes.create_string_buffer(self._specs[queue].value_size)
        found = libbpf.library().bpf_map_lookup_and_delete_elem(self._maps[queue], None, value) == 0
        return value.raw if found else b""
