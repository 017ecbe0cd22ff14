# SPDX-License-Identifier: Apache-2.0
"""Compile one BPF C file with BCC, in a process of its own: the service never maps LLVM (decision 1).

``python compiler.py [--without-maps] SOURCE.c [CFLAG...]`` prints the result as JSON::

    {"maps": {NAME: {"fd", "type", "key_size", "value_size", "max_entries", "flags"}},
     "programs": {NAME: HEX}}

The instructions name maps by the file descriptors of this process; the loader replaces them by its
own. Errors go to standard error. The exit status is 3 where BCC is not installed, 1 for other errors.

BCC creates the maps while it compiles, which takes CAP_BPF. With ``--without-maps`` none is created and
nothing else asked of the kernel: this is how the programs are compiled where there are no privileges.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parents[3] / "bpf_pm"
EXIT_NO_BCC = 3
WITHOUT_MAPS = "--without-maps"

# /usr/include/elf.h and <sys/mman.h>
_DT_NULL, _DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_JMPREL = 0, 2, 5, 6, 23
_DYNAMIC = struct.Struct("=QQ")  # Elf64_Dyn: tag, value
_RELOCATION = struct.Struct("=QQq")  # Elf64_Rela: offset, symbol << 32 | type, addend
_SYMBOL_SIZE = 24  # Elf64_Sym, which begins with the 32-bit place of its name
_PROT_READ_WRITE = 3
_RTLD_DI_LINKMAP = 2


class _LinkMap(ctypes.Structure):
    """The start of struct link_map (<link.h>)."""

    _fields_ = [("base", ctypes.c_size_t), ("name", ctypes.c_char_p), ("dynamic", ctypes.c_size_t)]


def compile_source(source: Path, cflags: list[str], *, create_maps: bool = True) -> dict[str, Any]:
    """Maps and programs of ``source``, an absolute path (BCC changes the directory), as in the module's text.

    Files are included from its directory and from bpf_pm/include. Raises ImportError without BCC,
    Exception for bad C.
    """
    # BCC looks for the kernel's headers; the few that a sock_ops program needs are in the stub tree.
    os.environ["BCC_KERNEL_SOURCE"] = str(SOURCES / "stub")
    os.environ["BCC_LINUX_VERSION_CODE"] = str(_kernel_version_code())
    import bcc

    if not create_maps:
        _pretend_to_create_maps(bcc.lib)

    # BCC compiles a text without a name; with this line, errors name the file.
    text = f'#line 1 "{source}"\n{source.read_text()}'
    includes = [f"-I{directory}" for directory in (source.parent, SOURCES / "include")]
    # Else a misspelled function becomes a call of nothing, which the verifier finds as "unknown opcode".
    errors = ["-Werror=implicit-function-declaration"]
    module = bcc.BPF(text=text, cflags=[*includes, *errors, *cflags])
    lib, handle = bcc.lib, module.module
    lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
    for name in ("name", "fd_id", "key_size_id", "leaf_size_id"):
        getattr(lib, f"bpf_table_{name}").argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    lib.bpf_table_name.restype = ctypes.c_char_p
    maps = {
        lib.bpf_table_name(handle, i).decode(): {
            "fd": lib.bpf_table_fd_id(handle, i),
            "type": lib.bpf_table_type_id(handle, i),
            "key_size": lib.bpf_table_key_size_id(handle, i),
            "value_size": lib.bpf_table_leaf_size_id(handle, i),
            "max_entries": lib.bpf_table_max_entries_id(handle, i),
            "flags": lib.bpf_table_flags_id(handle, i),
        }
        for i in range(lib.bpf_num_tables(handle))
    }
    programs = {
        name.decode(): ctypes.string_at(
            lib.bpf_function_start(handle, name), lib.bpf_function_size(handle, name)
        ).hex()
        for name in (lib.bpf_function_name(handle, i) for i in range(lib.bpf_num_functions(handle)))
    }
    return {"maps": maps, "programs": programs}


def _map_create() -> int:
    """Stands in for libbpf's ``bpf_map_create``: a descriptor that is no map, and unlike any other."""
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


_map_create_in_c = ctypes.CFUNCTYPE(ctypes.c_int)(_map_create)  # the arguments are of no interest


def _pretend_to_create_maps(library: ctypes.CDLL) -> None:
    """Let ``_map_create`` answer the library's calls of ``bpf_map_create``, by its table of imports."""
    libc = ctypes.CDLL(None)
    found = ctypes.POINTER(_LinkMap)()
    libc.dlinfo(ctypes.c_void_p(library._handle), _RTLD_DI_LINKMAP, ctypes.byref(found))
    for name, slot in _imports(found.contents):
        if name == b"bpf_map_create":
            page = slot & ~(os.sysconf("SC_PAGE_SIZE") - 1)
            libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(slot + 8 - page), _PROT_READ_WRITE)
            ctypes.c_void_p.from_address(slot).value = ctypes.cast(_map_create_in_c, ctypes.c_void_p).value
            return
    raise RuntimeError("libbcc does not import bpf_map_create")


def _imports(library: _LinkMap) -> Iterator[tuple[bytes, int]]:
    """(name, address of the pointer) of each function that a loaded library calls in others."""
    tags: dict[int, int] = {}
    place = library.dynamic
    while (entry := _DYNAMIC.unpack(ctypes.string_at(place, _DYNAMIC.size)))[0] != _DT_NULL:
        tags[entry[0]] = entry[1]
        place += _DYNAMIC.size
    for offset, symbol, _ in _RELOCATION.iter_unpack(ctypes.string_at(tags[_DT_JMPREL], tags[_DT_PLTRELSZ])):
        name = ctypes.c_uint32.from_address(tags[_DT_SYMTAB] + (symbol >> 32) * _SYMBOL_SIZE).value
        yield ctypes.string_at(tags[_DT_STRTAB] + name), library.base + offset


def _kernel_version_code() -> int:
    """LINUX_VERSION_CODE of the running kernel."""
    match = re.match(r"(\d+)\.(\d+)", os.uname().release)
    major, minor = map(int, match.groups()) if match else (5, 19)
    return (major << 16) + (minor << 8)


def main(arguments: list[str]) -> int:
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # BCC prints warnings to standard output
    create_maps = arguments[0] != WITHOUT_MAPS
    source, *cflags = arguments if create_maps else arguments[1:]
    try:
        compiled = compile_source(Path(source).resolve(), cflags, create_maps=create_maps)
    except ImportError as e:
        print(e, file=sys.stderr)
        return EXIT_NO_BCC
    except Exception as e:  # BCC raises nothing narrower
        print(e, file=sys.stderr)
        return 1
    with output:
        json.dump(compiled, output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
