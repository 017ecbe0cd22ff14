# SPDX-License-Identifier: Apache-2.0
"""What the verifier takes and refuses, as BPF instructions: no compiler's choice is in between."""

from __future__ import annotations

import ctypes
import os
import struct

import pytest

from pm.linux.bpf.libbpf import ProgramRefused, load_sock_ops

LOC_KEY, REM_KEY, LOC_TOKEN, REM_TOKEN, FLAGS = 224, 232, 240, 244, 248
RADDR_ID, RADDR_IP6_LAST, END = 252, 280, 284
OPEN, CLOSE, LOCALS = 212, 213, 214
LOAD = {8: 0x79, 4: 0x61, 2: 0x69, 1: 0x71}
CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF = 12, 38, 39


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, src << 4 | dst, off, imm)


def program(*body: bytes) -> bytes:
    return b"".join(body) + insn(0xB7, 0, imm=1) + insn(0x95)


def read(offset: int, size: int, *, dst: int = 2) -> bytes:
    return program(insn(LOAD[size], dst, 1, offset))


def call(helper: int, src: tuple[int | None, int], dst: tuple[int | None, int], *, filled: int = 40) -> bytes:
    """A call with (stack offset or None for NULL, length) twice, 40 bytes of the stack written."""
    body = [insn(0x7A, 10, off=-8 * (i + 1)) for i in range(5)]
    for register, (where, length) in ((2, src), (4, dst)):
        if where is None:
            body.append(insn(0xB7, register))
        else:
            body += [insn(0xBF, register, 10), insn(0x07, register, imm=where)]
        body.append(insn(0xB7, register + 1, imm=length))
    return program(*body, insn(0x85, imm=helper))


def look(where: int | None, length: int) -> bytes:
    """A call of bpf_mptcp_locals() with a buffer on the stack that nobody wrote, or NULL, and its length."""
    pointer = (insn(0xB7, 2),) if where is None else (insn(0xBF, 2, 10), insn(0x07, 2, imm=where))
    return program(*pointer, insn(0xB7, 3, imm=length), insn(0x85, imm=LOCALS))


ACCEPTED = {
    "key": read(LOC_KEY, 8),
    "key into its own register": read(REM_KEY, 8, dst=1),
    "half a key": read(LOC_KEY + 4, 4),
    "byte of a key": read(REM_KEY + 7, 1),
    "token": read(LOC_TOKEN, 4),
    "token into its own register": read(REM_TOKEN, 4, dst=1),
    "half a token": read(REM_TOKEN + 2, 2),
    "byte of the flags": read(FLAGS, 1),
    "address id": read(RADDR_ID, 4),
    "address id into its own register": read(RADDR_ID, 4, dst=1),
    "last word of the address": read(RADDR_IP6_LAST, 4),
    "byte of the address": read(RADDR_IP6_LAST + 3, 1),
    "open (NULL, 0, NULL, 0)": call(OPEN, (None, 0), (None, 0)),
    "open two addresses": call(OPEN, (-40, 40), (-16, 16)),
    "open a length that only the helper refuses": call(OPEN, (-40, 3), (-40, 0)),
    "close": call(CLOSE, (None, 0), (-28, 28)),
    "look at nothing": look(None, 0),
    "look at many": look(-480, 480),
    "look with a length that only the helper refuses": look(-40, 3),
}
REFUSED = {
    "two tokens at once": read(LOC_TOKEN, 8),
    "token and flags, unaligned": read(REM_TOKEN, 8),
    "unaligned half": read(FLAGS + 1, 2),
    "padding behind the last field": read(END, 4),
    "byte of the padding": read(END + 3, 1),
    "past the end": read(END + 4, 4),
    "write a token": program(insn(0xB7, 2), insn(0x63, 1, 2, LOC_TOKEN)),
    "write a key": program(insn(0xB7, 2), insn(0x7B, 1, 2, LOC_KEY)),
    "NULL with a length": call(OPEN, (None, 16), (None, 0)),
    "length beyond the stack's frame": call(OPEN, (-16, 40), (None, 0)),
    "NULL with a length, close": call(CLOSE, (None, 0), (None, 16)),
    "look into NULL": look(None, 40),
    "look beyond the stack's frame": look(-40, 80),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_accepted(what: str) -> None:
    """The program loads."""
    os.close(load_sock_ops("accepted", ACCEPTED[what]))


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    """The program does not load."""
    with pytest.raises(ProgramRefused):
        os.close(load_sock_ops("refused", REFUSED[what]))


def loads_with(capabilities: tuple[int, ...], instructions: bytes) -> bool:
    """Whether a process with these capabilities only can load the program."""
    pid = os.fork()
    if pid == 0:
        mask = sum(1 << capability for capability in capabilities)
        header = struct.pack("=Ii", 0x20080522, 0)
        data = struct.pack("=6I", *((mask & 0xFFFFFFFF,) * 2), 0, *((mask >> 32,) * 2), 0)
        if ctypes.CDLL(None).capset(header, data) != 0:
            os._exit(2)
        try:
            load_sock_ops("capabilities", instructions)
        except ProgramRefused:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 1)
    return status == 0


@pytest.mark.parametrize("offset", [LOC_KEY, REM_KEY])
def test_keys_need_perfmon(offset: int) -> None:
    """CAP_BPF and CAP_NET_ADMIN load a program that reads tokens; keys take CAP_PERFMON too."""
    few = (CAP_NET_ADMIN, CAP_BPF)
    assert loads_with(few, read(LOC_TOKEN, 4))
    assert not loads_with(few, read(offset, 8))
    assert not loads_with(few, read(offset, 1))
    assert loads_with((*few, CAP_PERFMON), read(offset, 8))
