# SPDX-License-Identifier: GPL-2.0-only
"""Test programs: compiled by BCC, loaded, attached to a cgroup, their maps read and written."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SOCK_OPS, ATTACH_SOCK_OPS, ALLOW_MULTI = 13, 3, 2
PROG_ATTACH, PROG_DETACH, SYS_BPF = 8, 9, 321
CLAIM, REFUSE = 0x4D500001, 0x4D500002


class Op(IntEnum):
    NEW_SESSION = 100
    FULLY_ESTABLISHED = 101
    CLOSE_SESSION = 102
    ADD_RADDR = 103
    REM_RADDR = 104
    SUBFLOW_ESTABLISHED = 105
    SUBFLOW_CLOSED = 106
    JOIN_REQUEST = 107


class Flag(IntEnum):
    """mptcp_flags"""

    MASTER = 1
    JOIN = 2
    ESTABLISHED = 4
    SERVER = 8
    FALLBACK = 16
    CLAIMED = 32
    BACKUP = 64
    DENY_JOIN_ID0 = 128


class Event(NamedTuple):
    """struct event of programs/record.c; ``raddr``: id, family, port (network order), packed address."""

    time_ns: int
    op: Op
    args: tuple[int, ...]
    keys: tuple[int, int]
    tokens: tuple[int, int]
    flags: int
    raddr: tuple[int, int, int, bytes]
    family: int
    ports: tuple[int, int]
    results: tuple[int, ...]


_EVENT = struct.Struct("=QQQ I4I II I 3I20s I II I 4i 8x")
_ADDRESS = struct.Struct("=HH4s16sIIII")


def address(
    ip: str = "", port: int = 0, *, id: int = 0, ifindex: int = 0, flags: int = 0, length: int = 40
) -> bytes:
    """``length`` bytes of a struct bpf_mptcp_addr."""
    family, ip4, ip6 = 0, bytes(4), bytes(16)
    if ":" in ip:
        family, ip6 = socket.AF_INET6, socket.inet_pton(socket.AF_INET6, ip)
    elif ip:
        family, ip4 = socket.AF_INET, socket.inet_aton(ip)
    packed = _ADDRESS.pack(family, socket.htons(port), ip4, ip6, 0, id, ifindex, flags)
    return packed[:length]


def compile_program(path: Path, cflags: tuple[str, ...] = ()) -> Any:
    os.environ["BCC_KERNEL_SOURCE"] = str(REPOSITORY / "bpf_pm" / "stub")
    os.environ["BCC_LINUX_VERSION_CODE"] = str((6 << 16) + (12 << 8))
    import bcc

    return bcc.BPF(
        src_file=str(path).encode(),
        cflags=[f"-I{REPOSITORY / 'bpf_pm' / 'include'}", "-Wno-unused-value", *cflags],
    )


def _bpf(command: int, attributes: bytes) -> None:
    buffer = ctypes.create_string_buffer(attributes.ljust(64, b"\0"))
    if ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, command, buffer, 64) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class Program:
    """A sock_ops program, attached to as many cgroups as wanted."""

    def __init__(self, name: str = "record", *, function: str = "record") -> None:
        self.module = compile_program(HERE / "programs" / f"{name}.c")
        self.fd: int = self.module.load_func(function.encode(), SOCK_OPS).fd

    def attach(self, cgroup: Path) -> None:
        fd = os.open(cgroup, os.O_RDONLY)
        try:
            _bpf(PROG_ATTACH, struct.pack("=IIII", fd, self.fd, ATTACH_SOCK_OPS, ALLOW_MULTI))
        finally:
            os.close(fd)

    def detach(self, cgroup: Path) -> None:
        fd = os.open(cgroup, os.O_RDONLY)
        try:
            _bpf(PROG_DETACH, struct.pack("=II I", fd, self.fd, ATTACH_SOCK_OPS))
        finally:
            os.close(fd)


class Recorder(Program):
    """programs/record.c"""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[Event] = []

    def reply(self, *, new_session: int = CLAIM, join_request: int = 0) -> None:
        table = self.module[b"replies"]
        table[0], table[1] = ctypes.c_uint32(new_session), ctypes.c_uint32(join_request)

    def act(
        self,
        index: int,
        op: Op,
        kind: str,
        src: bytes = b"",
        dst: bytes = b"",
        *,
        times: int = 1,
        remaining: int = 1,
        lengths: tuple[int, int] | None = None,
    ) -> None:
        """In the next ``remaining`` callbacks ``op``, call the helper ``kind`` ("open", "close")."""
        src_len, dst_len = lengths or (len(src), len(dst))
        packed = struct.pack(
            "=6I40s40s", op, {"open": 1, "close": 2}[kind], src_len, dst_len, times, remaining, src, dst
        )
        table = self.module[b"actions"]
        table[ctypes.c_int(index)] = table.Leaf.from_buffer_copy(packed)

    def reset(self) -> None:
        self._read()
        self._events.clear()
        self.reply(new_session=0)
        for name in (b"actions", b"counts"):
            table = self.module[name]
            for i in range(len(table)):
                table[ctypes.c_int(i)] = table.Leaf()

    def count(self, op: Op) -> int:
        return int(self.module[b"counts"][op - Op.NEW_SESSION].value)

    def events(self, *ops: Op) -> list[Event]:
        self._read()
        return [e for e in self._events if not ops or e.op in ops]

    def _read(self) -> None:
        """Move what the queue holds to the list."""
        while True:
            try:
                raw = self.module[b"events"].pop()
            except KeyError:
                return
            f = _EVENT.unpack(bytes(raw))
            ip, family = f[14], f[12]
            self._events.append(
                Event(
                    time_ns=f[2],
                    op=Op(f[3]),
                    args=f[4:8],
                    keys=f[0:2],
                    tokens=f[8:10],
                    flags=f[10],
                    raddr=(
                        f[11],
                        family,
                        socket.ntohs(f[13]),
                        ip[:4] if family == socket.AF_INET else ip[4:],
                    ),
                    family=f[15],
                    ports=(f[16], socket.ntohl(f[17])),
                    results=f[19:23],
                )
            )
            assert f[18] == f[10] & 0xFF, "narrow load of mptcp_flags"
