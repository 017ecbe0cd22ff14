# SPDX-License-Identifier: Apache-2.0
"""programs/record.c: the MPTCP callbacks of the patched kernel as a test sees and answers them."""

from __future__ import annotations

import socket
import struct
from enum import IntEnum
from typing import NamedTuple

from tests.lab.sock_ops import SockOpsProgram

CLAIM, REFUSE = 0x4D500001, 0x4D500002


class Op(IntEnum):
    """The callbacks, BPF_SOCK_OPS_MPTCP_* of bpf_mptcp.h."""

    NEW_SESSION = 100
    FULLY_ESTABLISHED = 101
    CLOSE_SESSION = 102
    ADD_RADDR = 103
    REM_RADDR = 104
    SUBFLOW_ESTABLISHED = 105
    SUBFLOW_CLOSED = 106
    JOIN_REQUEST = 107
    PRIORITY = 108
    ORPHAN_SESSION = 109
    REQUEST_DONE = 110
    ADDRESS_CHANGED = 111


class Flag(IntEnum):
    """The bits of ``mptcp_flags`` in the context of a callback."""

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


class Recorder(SockOpsProgram):
    """Keeps every callback of the cgroups it is attached to, and replies and acts as it is told."""

    def __init__(self) -> None:
        super().__init__("record")
        self._events: list[Event] = []

    def reply(self, *, new_session: int = CLAIM, join_request: int = 0, orphan_session: int = 0) -> None:
        """What the program replies to the callbacks that ask."""
        for index, value in enumerate((new_session, join_request, orphan_session)):
            self.write("replies", index, struct.pack("=I", value))

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
    ) -> None:
        """Call ``kind`` ("open", "close") ``times`` times in each of the next ``remaining`` callbacks ``op``.

        ``index``: 0 to 3, which of the four actions it is; its last result is ``Event.results[index]``.
        """
        number = {"open": 1, "close": 2}[kind]
        packed = struct.pack("=6I40s40s", op, number, len(src), len(dst), times, remaining, src, dst)
        self.write("actions", index, packed)

    def reset(self) -> None:
        """Attached nowhere, with nothing recorded and nothing to do."""
        self.detach()
        self._read()
        self._events.clear()
        self.reply(new_session=0)
        self.clear("actions")
        self.clear("counts")

    def count(self, op: Op) -> int:
        """How many callbacks ``op`` there were."""
        return self.integers("counts")[op - Op.NEW_SESSION]

    def events(self, *ops: Op) -> list[Event]:
        """The callbacks so far, or those of ``ops``, in their order.

        ADDRESS_CHANGED only where it is named: it comes whenever the host has detected no duplicate.
        """
        self._read()
        return [e for e in self._events if (e.op in ops if ops else e.op != Op.ADDRESS_CHANGED)]

    def _read(self) -> None:
        """Move what the queue holds to the list."""
        while raw := self.pop("events"):
            f = _EVENT.unpack(raw)
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
