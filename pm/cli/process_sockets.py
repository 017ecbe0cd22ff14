# SPDX-License-Identifier: Apache-2.0
"""The sockets of a process and what it runs, from /proc with the rights of whoever asks."""

from __future__ import annotations

import os
import re
import struct
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pm.errors import PmError
from pm.names import show_name

DESCRIPTORS_MAX = 1 << 16
_SOCKET = re.compile(r"socket:\[([0-9]+)\]")
_ELF_HEAD_BYTES = 8192  # the program headers, and in front of all else the note with Go's build id
_ELF64 = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_GO_NOTE = b"\x04\0\0\0Go\0\0"
_PT_INTERP = 3


class Process(NamedTuple):
    """``inodes`` are those of its sockets, of whatever kind; ``unit`` is its systemd service, or "".

    ``go`` and ``static`` are about its executable; both false where that cannot be read.
    """

    pid: int
    name: str
    inodes: list[int]
    namespace: int
    unit: str
    go: bool
    static: bool

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name})"


def read_process(pid: int) -> Process:
    """Raises PmError where there is no such process, or its sockets cannot be seen."""
    place = Path("/proc", str(pid))
    try:
        name = show_name((place / "comm").read_bytes().rstrip(b"\n"))
        namespace = (place / "ns/net").stat().st_ino
        inodes = _inodes(place / "fd")
        cgroup = (place / "cgroup").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise PmError(f"there is no process {pid}", "`ps -e` shows the processes that run") from None
    except PermissionError:
        remedy = "run this command as root (sudo)" if os.geteuid() else "give CAP_SYS_PTRACE, or an address"
        raise PmError(f"no permission to see the sockets of process {pid}", remedy) from None
    go, static = _executable(place / "exe")
    return Process(pid, name, inodes, namespace, _unit(cgroup), go, static)


def _inodes(directory: Path) -> list[int]:
    found = set()
    with os.scandir(directory) as entries:
        for entry in islice(entries, DESCRIPTORS_MAX):
            try:
                target = os.readlink(entry.path)
            except FileNotFoundError:
                continue  # closed since
            if match := _SOCKET.fullmatch(target):
                found.add(int(match[1]))
    return sorted(found)


def _unit(cgroup: str) -> str:
    """Of the lines of /proc/PID/cgroup."""
    match = re.search(r"^0::.*/([^/]+\.service)(/|$)", cgroup, re.MULTILINE)
    return match[1] if match else ""


def _executable(file: Path) -> tuple[bool, bool]:
    """Whether it is a program in Go, and whether it is one without a dynamic linker."""
    try:
        with file.open("rb") as opened:
            head = opened.read(_ELF_HEAD_BYTES)
    except OSError:
        return False, False
    if not head.startswith(_ELF64) or len(head) < 64:
        return False, False
    (start,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    places = [start + i * size for i in range(count)]
    kinds = {struct.unpack_from("<I", head, at)[0] for at in places if at + 4 <= len(head)}
    return _GO_NOTE in head, _PT_INTERP not in kinds
