# SPDX-License-Identifier: Apache-2.0
"""Why the kernel's verifier refuses a program, in its own words."""

from __future__ import annotations

import os
import struct

import pytest

from pm.linux.bpf.libbpf import ProgramRefused, load_sock_ops


def insn(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, dst | src << 4, offset, value)


EXIT = insn(0xB7) + insn(0x95)  # r0 = 0; exit
WRONG = {
    "a register without a value": (insn(0x15, 3) + EXIT, "R3 !read_ok"),
    "a loop that changes nothing": (
        insn(0x61, 2, 1) + insn(0xB7, 3) + insn(0xB7, 3) + insn(0x15, 2, 0, -2, 7) + EXIT,
        "infinite loop detected at insn",
    ),
    "no pointer": (insn(0x61, 2, 1) + insn(0x79, 0, 2) + insn(0x95), "R2 invalid mem access 'scalar'"),
    "no return value": (insn(0x95), "R0 !read_ok"),
    "past the context": (insn(0x61, 0, 1, 4000) + insn(0x95), "invalid bpf_context access off=4000 size=4"),
}


@pytest.mark.parametrize("what", WRONG)
def test_the_reason_is_said(what: str) -> None:
    """Not the instructions before it, nor the states of registers after it."""
    instructions, reason = WRONG[what]
    with pytest.raises(ProgramRefused) as refused:
        os.close(load_sock_ops("wrong", instructions))
    assert refused.value.reason.startswith(reason), refused.value.log
