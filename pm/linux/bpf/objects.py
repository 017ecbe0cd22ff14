# SPDX-License-Identifier: Apache-2.0
"""A compiled BPF C file: made by ``compiler.py`` in a child process, loaded here as often as needed.

``precompiled.py`` reads one that was made beforehand.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pm.errors import PmError, SystemUnfit
from pm.linux.bpf import compiler, libbpf
from pm.linux.host.privileges import Capability, holds
from pm.linux.host.remedies import perfmon_remedy, where_it_runs

SOURCES = compiler.SOURCES
PRIVILEGES = "run it as root, or with the capabilities CAP_BPF and CAP_NET_ADMIN"

_COMPILER_ERROR = re.compile(
    r"^(?P<file>[^:\n]+):(?P<line>\d+):\d+: (?:fatal )?error: (?P<what>.*)$", re.MULTILINE
)
_CREATE_MAP = b"could not open bpf map"  # BCC, where it cannot create one
_LD_IMM64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW: two struct bpf_insn, each with half of the value
_LOAD_IMM64 = struct.Struct("=BB2xI4xI")  # opcode, registers, low half, high half
_PSEUDO_MAP_FD = 1


class NoCompiler(SystemUnfit):
    """BCC is not installed."""


class DoesNotCompile(PmError):
    """The compiler refused C."""


class VerifierRefused(SystemUnfit):
    """The kernel's verifier refused a program."""


class BpfObject(NamedTuple):
    """``maps``: name -> (its number in the instructions, spec); ``programs``: name -> instructions."""

    maps: Mapping[str, tuple[int, libbpf.MapSpec]]
    programs: Mapping[str, bytes]

    def load(
        self, program: str, *, maps: Mapping[str, int], constants: Mapping[int, int], log_file: Path
    ) -> int:
        """Load a sock_ops program with these maps (name -> descriptor) and constants (placeholder -> value).

        Returns its descriptor. Raises SystemUnfit without the privileges, and VerifierRefused; the
        verifier's log is in ``log_file`` then.
        """
        descriptors = {fd: maps[name] for name, (fd, _) in self.maps.items()}
        instructions = link_instructions(self.programs[program], descriptors, constants)
        try:
            return libbpf.load_sock_ops(program, instructions)
        except libbpf.ProgramRefused as e:
            if not e.log:
                raise SystemUnfit(f"cannot load BPF programs ({e})", PRIVILEGES) from e
            _write(log_file, e.log)
            remedy = f"the verifier's log is in {log_file}"
            if not holds(Capability.PERFMON):
                remedy = f"{perfmon_remedy()}: without it the verifier allows less; {remedy}"
            raise VerifierRefused(
                f"the kernel's verifier refused the BPF program {program}: {e.reason}", remedy
            ) from e


async def compile_object(
    source: Path, *, log_file: Path, cflags: Sequence[str] = (), create_maps: bool = True
) -> BpfObject:
    """Compile with BCC in a child process: it takes up to 1 s, and 100 MiB of memory until it ends.

    No privileges are needed without ``create_maps``. Raises NoCompiler where BCC is missing, SystemUnfit
    where it may not create maps, DoesNotCompile; the compiler's whole output is in ``log_file`` then.
    """
    options = [] if create_maps else [compiler.WITHOUT_MAPS]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", compiler.__file__, *options, source, *cflags,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode == compiler.EXIT_NO_BCC:
        remedy = await asyncio.to_thread(
            where_it_runs, host="apt install python3-bpfcc", container="use the image `full`"
        )
        raise NoCompiler("python3-bpfcc (BCC) is not installed", remedy)
    if child.returncode != 0:
        await asyncio.to_thread(_write, log_file, errors.decode(errors="replace"))
        refused = os.strerror(errno.EPERM).encode() in errors
        if refused or (_CREATE_MAP in errors and await asyncio.to_thread(_lacks_capabilities)):
            raise SystemUnfit("creating BPF maps is not permitted", PRIVILEGES)
        message = first_error(source, errors.decode(errors="replace"))
        raise DoesNotCompile(message, f"the compiler's output is in {log_file}")
    return parse_object(json.loads(output))


def first_error(source: Path, output: str) -> str:
    """The first error of the compiler in one line, with the file and line that it is about."""
    if found := _COMPILER_ERROR.search(output):
        return f"{found['file']} does not compile: line {found['line']}: {found['what']}"
    return f"{source} does not compile"


def parse_object(document: Mapping[str, Any]) -> BpfObject:
    """The object in what ``compiler.py`` printed."""
    return BpfObject(
        maps={name: (m.pop("fd"), libbpf.MapSpec(**m)) for name, m in document["maps"].items()},
        programs={name: bytes.fromhex(code) for name, code in document["programs"].items()},
    )


def link_instructions(code: bytes, descriptors: Mapping[int, int], constants: Mapping[int, int]) -> bytes:
    """Instructions in which map descriptors and 64-bit constants are replaced by the given ones.

    ``descriptors`` has the numbers of the maps in ``code`` as keys, ``constants`` the placeholders. Raises
    KeyError for a map that is not in ``descriptors``.
    """
    linked = bytearray(code)
    offset = 0
    while offset < len(code):
        if code[offset] != _LD_IMM64:
            offset += 8
            continue
        opcode, registers, low, high = _LOAD_IMM64.unpack_from(code, offset)
        value = high << 32 | low
        value = descriptors[low] if registers >> 4 == _PSEUDO_MAP_FD else constants.get(value, value)
        _LOAD_IMM64.pack_into(linked, offset, opcode, registers, value & 0xFFFFFFFF, value >> 32)
        offset += 16
    return bytes(linked)


def _lacks_capabilities() -> bool:
    """The reason of an EINVAL for a map that needs BTF, which only CAP_BPF may load."""
    return not holds(Capability.BPF)


def _write(log_file: Path, text: str) -> None:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    log_file.write_text(text)
