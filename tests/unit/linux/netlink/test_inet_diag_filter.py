# SPDX-License-Identifier: Apache-2.0
"""The filter of sockets, run as the kernel runs it."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from pm.linux.netlink.inet_diag_filter import D_EQ, JMP, S_EQ, any_of

u16 = st.integers(0, 65535)
few = st.integers(1, 3)
pairs = st.tuples(u16, u16) | st.tuples(few, few)


def accepts(code: bytes, local: int, remote: int) -> bool:
    """inet_diag_bc_run (net/ipv4/inet_diag.c)."""
    at = 0
    while at < len(code):
        operation, yes, no = struct.unpack_from("=BBH", code, at)
        match operation:
            case 1:
                assert operation == JMP
                holds = False
            case 11 | 12:
                (_, _, port) = struct.unpack_from("=BBH", code, at + 4)
                assert operation in (S_EQ, D_EQ)
                holds = port == (local if operation == S_EQ else remote)
            case _:
                raise AssertionError(operation)
        at += yes if holds else no
    return at == len(code)


@given(st.lists(pairs, min_size=1, max_size=20), pairs)
def test_sockets_with_one_of_the_pairs_of_ports_pass(
    ports: list[tuple[int, int]], pair: tuple[int, int]
) -> None:
    """Both ports of one pair must hold; that of another pair does not count."""
    code = any_of(ports)
    assert accepts(code, *pair) == (pair in ports)
    assert all(accepts(code, *listed) for listed in ports)
