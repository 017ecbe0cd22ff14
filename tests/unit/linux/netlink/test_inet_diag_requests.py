# SPDX-License-Identifier: Apache-2.0
"""Requests to sock_diag are byte for byte what pyroute2 packs."""

from __future__ import annotations

import socket
import struct

import pytest
from pyroute2.netlink.diag import inet_diag_req

from pm.linux.netlink import inet_diag_requests

NO_COOKIE = 0xFFFFFFFFFFFFFFFF


def words(ip: str) -> tuple[int, ...]:
    packed = socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip).ljust(16, b"\0")
    return struct.unpack(">4I", packed)


def pyroute2_request(flags: int, **fields: object) -> bytes:
    request = inet_diag_req()
    request["header"]["type"] = inet_diag_requests.SOCK_DIAG_BY_FAMILY
    request["header"]["flags"] = flags
    for name, value in fields.items():
        request[name] = value
    request.encode()
    return bytes(request.data)


@pytest.mark.parametrize(
    ("local", "remote", "family"),
    [("192.0.2.1", "198.51.100.7", socket.AF_INET), ("2001:db8::1", "2001:db8::2", socket.AF_INET6)],
)
def test_a_look_up_is_packed_as_pyroute2_packs_it(local: str, remote: str, family: int) -> None:
    """The bytes of a look-up of one socket, with INFO and CONG, are pyroute2's."""
    assert inet_diag_requests.lookup_request(local, 40000, remote, 443, 7) == pyroute2_request(
        1,
        sdiag_family=family,
        sdiag_protocol=socket.IPPROTO_TCP,
        idiag_ext=1 << 1 | 1 << 3,
        idiag_sport=40000,
        idiag_dport=443,
        idiag_src=words(local),
        idiag_dst=words(remote),
        idiag_if=7,
        idiag_cookie=NO_COOKIE,
    )


def test_a_dump_is_packed_as_pyroute2_packs_it() -> None:
    """The bytes of a dump of all states a subflow can act in are pyroute2's."""
    states = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11))
    assert inet_diag_requests.dump_request(socket.AF_INET6) == pyroute2_request(
        0x301,
        sdiag_family=socket.AF_INET6,
        sdiag_protocol=socket.IPPROTO_TCP,
        idiag_ext=1 << 1,
        idiag_states=states,
        idiag_src=(0, 0, 0, 0),
        idiag_dst=(0, 0, 0, 0),
        idiag_cookie=0,
    )


def test_a_session_is_asked_for_by_token_and_protocol_262() -> None:
    """The token is the first word of the cookie; the protocol, too large for its byte, is an attribute."""
    request = inet_diag_requests.session_request(0xCAFE0001)
    attribute = struct.pack("=HHI", 8, 3, 262)
    expected = pyroute2_request(
        1,
        sdiag_family=socket.AF_INET,
        sdiag_protocol=262 & 0xFF,
        idiag_ext=1 << 1,
        idiag_src=(0, 0, 0, 0),
        idiag_dst=(0, 0, 0, 0),
        idiag_cookie=0xFFFFFFFF << 32 | 0xCAFE0001,
    )
    assert request == struct.pack("=I", len(expected) + 8) + expected[4:] + attribute
