# SPDX-License-Identifier: GPL-2.0-only
"""Compile one BPF C file with BCC, in a process of its own: the service never maps LLVM (decision 1).

``python compiler.py SOURCE.c [CFLAG...]`` prints the result as JSON::

    {"maps": {NAME: {"fd", "type", "key_size", "value_size", "max_entries", "flags"}},
     "programs": {NAME: HEX}}

The instructions name maps by the file descriptors of this process; the loader replaces them by its
own. Errors go to standard error. The exit status is 3 where BCC is not installed, 1 for other errors.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parents[3] / "bpf_pm"
EXIT_NO_BCC = 3


def compile_source(source: Path, cflags: list[str]) -> dict[str, Any]:
    """Maps and programs of ``source``, an absolute path (BCC changes the directory), as in the module's text.

    Files are included from its directory and from bpf_pm/include. Raises ImportError without BCC,
    Exception for bad C.
    """
    # BCC looks for the kernel's headers; the few that a sock_ops program needs are in the stub tree.
    os.environ["BCC_KERNEL_SOURCE"] = str(SOURCES / "stub")
    os.environ["BCC_LINUX_VERSION_CODE"] = str(_kernel_version_code())
    import bcc

    # BCC compiles a text without a name; with this line, errors name the file.
    text = f'#line 1 "{source}"\n{source.read_text()}'
    includes = [f"-I{directory}" for directory in (source.parent, SOURCES / "include")]
    module = bcc.BPF(text=text, cflags=[*includes, *cflags])
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


def _kernel_version_code() -> int:
    """LINUX_VERSION_CODE of the running kernel."""
    match = re.match(r"(\d+)\.(\d+)", os.uname().release)
    major, minor = map(int, match.groups()) if match else (5, 19)
    return (major << 16) + (minor << 8)


def main(arguments: list[str]) -> int:
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # BCC prints warnings to standard output
    try:
        compiled = compile_source(Path(arguments[0]).resolve(), arguments[1:])
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
