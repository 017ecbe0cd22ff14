# SPDX-License-Identifier: Apache-2.0
"""Compile all BPF programs beforehand: ``python3 -m pm.linux.bpf.precompile [DIRECTORY]``.

It needs BCC and no privileges, and asks nothing of the kernel. Without a directory the objects go where the
service looks for them (``precompiled.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from pm.errors import PmError
from pm.linux.bpf.objects import SOURCES, compile_object
from pm.linux.bpf.precompiled import NAMES, objects_directory, write_object


def precompile(directory: Path) -> list[Path]:
    """Write an object for each program, all or none. Raises PmError, OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as logs:
        try:
            compiled = {
                name: asyncio.run(
                    compile_object(SOURCES / f"{name}.c", log_file=Path(logs, name), create_maps=False)
                )
                for name in NAMES
            }
        except PmError:
            for log_file in Path(logs).iterdir():
                print(log_file.read_text(), file=sys.stderr)
            raise
    return [write_object(directory, name, program) for name, program in compiled.items()]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Compile the BPF programs for machines without BCC.")
    parser.add_argument("directory", nargs="?", type=Path, default=objects_directory())
    try:
        for path in precompile(parser.parse_args(arguments).directory):
            print(path)
    except (PmError, OSError) as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
