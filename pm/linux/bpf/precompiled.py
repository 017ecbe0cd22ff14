# SPDX-License-Identifier: Apache-2.0
"""BPF programs that were compiled beforehand: loaded without BCC, where they fit.

``precompile.py`` writes an object per program, OBJECTS/NAME.json::

    {"digest", "machine", "maps": {NAME: {"fd", "type", "key_size", ...}}, "programs": {NAME: HEX}}

It is what ``compiler.py`` prints, except that ``fd`` numbers the maps from 0. An object fits if its digest is
that of the sources, compiler flags and layouts that are installed, and of this machine's architecture. One
that does not fit is never loaded.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import json
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from types import ModuleType

from pm.errors import SystemUnfit
from pm.linux.bpf import layouts, path_manager_maps, tcp_option_layouts
from pm.linux.bpf.objects import (
    SOURCES,
    BpfObject,
    NoCompiler,
    compile_object,
    link_instructions,
    parse_object,
)
from pm.linux.host.remedies import where_it_runs
from pm.log import get_logger

log = get_logger()

NAMES = ("classify", "options", "path_manager")
"""The C files in ``SOURCES`` that are compiled, without ``.c``."""
DIRECTORY_VARIABLE = "MPTCP_PM_OBJECTS"
_LAYOUTS = (layouts, tcp_option_layouts, path_manager_maps)


def objects_directory() -> Path:
    """Where the precompiled objects are, if there are any."""
    return Path(os.environ.get(DIRECTORY_VARIABLE) or SOURCES / "objects")


async def obtain_object(source: Path, *, log_file: Path, cflags: Sequence[str] = ()) -> BpfObject:
    """The precompiled object of a file in ``SOURCES`` where it fits, else what BCC makes of it now.

    ``cflags`` are those of third parties' files, which nobody has precompiled. Raises what
    ``compile_object`` does; where BCC is missing, the error says why no precompiled object was used.
    """
    unfit: SystemUnfit | None = None
    if not cflags:
        try:
            return await asyncio.to_thread(read_object, source.stem)
        except FileNotFoundError:
            pass
        except SystemUnfit as e:
            unfit = e
    try:
        compiled = await compile_object(source, log_file=log_file, cflags=cflags)
    except NoCompiler as e:
        if unfit:
            raise unfit from e
        if cflags:
            raise NoCompiler(f"`source:` of a policy needs a compiler: {e.message}", e.remedy) from e
        raise
    if unfit:
        log.warning("precompiled_program_refused", program=source.stem, reason=unfit.message)
    return compiled


def check_objects() -> bool:
    """Whether there are precompiled objects. Raises SystemUnfit for one that does not fit."""
    try:
        for name in NAMES:
            read_object(name)
    except FileNotFoundError:
        return False
    return True


def read_object(name: str) -> BpfObject:
    """The precompiled object of a program. Raises FileNotFoundError, or SystemUnfit where it does not fit."""
    path = objects_directory() / f"{name}.json"
    remedy = where_it_runs(
        host="install one version only, or compile the programs again: `python3 -m pm.linux.bpf.precompile`",
        container="run the image as it was built, with no part of another version mounted into it",
    )
    try:
        document = json.loads(path.read_bytes())
        machine, stored, program = document["machine"], document["digest"], parse_object(document)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
        raise SystemUnfit(f"the precompiled BPF program {path} is unreadable", remedy) from e
    if machine != _machine():
        raise SystemUnfit(
            f"the precompiled BPF program {path} is for {machine}, and this machine is {_machine()}",
            where_it_runs(
                host="compile the programs again: `python3 -m pm.linux.bpf.precompile`",
                container=f"use the image for {_machine()}",
            ),
        )
    if stored != digest():
        raise SystemUnfit(f"the precompiled BPF program {path} is of another version of mptcp-pm", remedy)
    return program


def write_object(directory: Path, name: str, compiled: BpfObject) -> Path:
    """Write what ``read_object`` reads: equal for equal code, whatever descriptors the compiler had."""
    numbers = {map_name: number for number, map_name in enumerate(sorted(compiled.maps))}
    descriptors = {fd: numbers[map_name] for map_name, (fd, _) in compiled.maps.items()}
    document = {
        "digest": digest(),
        "machine": _machine(),
        "maps": {m: {"fd": numbers[m], **compiled.maps[m][1]._asdict()} for m in numbers},
        "programs": {
            program: link_instructions(code, descriptors, {}).hex()
            for program, code in sorted(compiled.programs.items())
        },
    }
    path = directory / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def digest() -> str:
    """Digest of all that a program depends on, with no third party's file in it."""
    inputs = hashlib.sha256(f"{_machine()} {sys.byteorder}".encode())
    for file in sorted(SOURCES.rglob("*.[ch]")):
        content = file.read_bytes()
        inputs.update(f"\n{file.relative_to(SOURCES)} {len(content)}\n".encode())
        inputs.update(content)
    inputs.update(json.dumps([list(_layout_of(module)) for module in _LAYOUTS]).encode())
    return inputs.hexdigest()


def _layout_of(module: ModuleType) -> Iterator[tuple[str, object]]:
    """(name, description) of each number, enum and structure that the service shares with the programs."""
    for name, value in sorted(vars(module).items()):
        match value:
            case int():
                yield name, value
            case struct.Struct():
                yield name, value.format
            case type() if issubclass(value, IntEnum):
                yield name, [(member.name, member.value) for member in value]
            case type() if issubclass(value, ctypes.Structure):
                places = [(n, getattr(value, n).offset, getattr(value, n).size) for n, *_ in value._fields_]
                yield name, [ctypes.sizeof(value), places]


def _machine() -> str:
    """The architecture, as the kernel calls it."""
    return os.uname().machine
