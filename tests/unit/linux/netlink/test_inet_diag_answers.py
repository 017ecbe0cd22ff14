# SPDX-License-Identifier: Apache-2.0
"""Answers of sock_diag are read from where the kernel puts each field."""

from __future__ import annotations

import socket
import struct

import pytest
from pyroute2.netlink.diag import inet_diag_msg

from pm.errors import KernelRefused
from pm.kernel import SubflowRecord, UlpFlag
from pm.linux.netlink import framing, inet_diag_answers
from pm.linux.netlink.inet_diag_answers import parse_subflow, read_part
from pm.linux.netlink.inet_diag_requests import SOCK_DIAG_BY_FAMILY
from tests.unit.linux.netlink.test_inet_diag_requests import words


def attribute(type_: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), type_) + payload + bytes(-len(payload) & 3)


def answer(*attributes: bytes, family: int = socket.AF_INET, source: str = "192.0.2.1") -> bytes:
    """A message of the kernel: struct inet_diag_msg, packed by pyroute2, and attributes."""
    message = inet_diag_msg()
    message["header"]["type"] = SOCK_DIAG_BY_FAMILY
    for name, value in {
        "idiag_family": family, "idiag_state": 1, "idiag_sport": 40000, "idiag_dport": 443,
        "idiag_src": words(source), "idiag_dst": words(source), "idiag_if": 3, "idiag_cookie": 99,
        "idiag_uid": 1000, "idiag_inode": 4711,
    }.items():  # fmt: skip
        message[name] = value
    message.encode()
    payload = bytes(message.data)[16:] + b"".join(attributes)
    return framing.pack(SOCK_DIAG_BY_FAMILY, 2, 0, payload)


def upper_layer(flags: int) -> bytes:
    nested = b"".join(
        (
            attribute(1, struct.pack("=I", 0xB)),
            attribute(2, struct.pack("=I", 0xA)),
            attribute(8, struct.pack("=I", flags)),
            attribute(9, b"\x05"),
            attribute(10, b"\x04"),
        )
    )
    return attribute(inet_diag_answers.ULP_INFO, attribute(1, b"mptcp\0") + attribute(3, nested))


def test_a_subflow_of_a_dump_is_read() -> None:
    """Addresses, ports, tokens, ids, cgroup and flags are where the kernel puts them."""
    joined = UlpFlag.JOIN_LOC | UlpFlag.JOIN_REM | UlpFlag.BACKUP_LOC | UlpFlag.FULLY_ESTABLISHED
    data = answer(attribute(21, struct.pack("=Q", 77)), upper_layer(joined))
    records: list[SubflowRecord] = []
    assert read_part(data, records, parse_subflow) == (False, False)
    assert records == [
        SubflowRecord(0xA, 0xB, "192.0.2.1", 40000, "192.0.2.1", 443, 4, 1, joined, 4, 5, 99, 77, 3),
    ]
    (record,) = records
    assert (record.is_initial, record.opened_here, record.is_established) == (False, True, True)
    assert (record.is_fully_established, record.backup, record.peer_backup) == (True, True, False)


def test_v4_mapped_addresses_become_ipv4() -> None:
    """The text is IPv4, and the family that of the socket."""
    records: list[SubflowRecord] = []
    read_part(
        answer(upper_layer(0), family=socket.AF_INET6, source="::ffff:192.0.2.1"), records, parse_subflow
    )
    assert [(r.local, r.remote, r.socket_family) for r in records] == [("192.0.2.1", "192.0.2.1", 6)]


def test_other_upper_layers_and_plain_tcp_are_no_subflows() -> None:
    """kTLS has ULP_INFO too, plain TCP none."""
    records: list[SubflowRecord] = []
    kernel_tls = attribute(inet_diag_answers.ULP_INFO, attribute(1, b"tls\0") + attribute(2, b""))
    read_part(answer() + answer(kernel_tls), records, parse_subflow)
    assert records == []


def test_the_end_of_a_dump_and_its_errors_are_told() -> None:
    """NLMSG_DONE ends it, with an errno it is refused; NLM_F_DUMP_INTR makes it inconsistent."""
    done = framing.pack(framing.NLMSG_DONE, 2, 0, struct.pack("=i", 0))
    interrupted = framing.pack(framing.NLMSG_DONE, 2 | framing.NLM_F_DUMP_INTR, 0, struct.pack("=i", 0))
    refused = framing.pack(framing.NLMSG_DONE, 2, 0, struct.pack("=i", -2))
    assert read_part(done, [], parse_subflow) == (True, False)
    assert read_part(answer() + interrupted, [], parse_subflow) == (True, True)
    with pytest.raises(KernelRefused, match="ENOENT"):
        read_part(refused, [], parse_subflow)


def tcp_info() -> bytes:
    """struct tcp_info, every 32-bit word after the first two holding its own offset."""
    return bytes(8) + b"".join(struct.pack("=I", offset) for offset in range(8, 240, 4))


def long_at(offset: int) -> int:
    return offset + (offset + 4 << 32)


def test_tcp_info_is_read_at_the_offsets_of_the_header_file() -> None:
    """Offsets of include/uapi/linux/tcp.h; a longer structure of a newer kernel changes nothing."""
    data = answer(attribute(4, b"cubic\0"), attribute(2, tcp_info()), upper_layer(UlpFlag.MCAP_LOC))
    stats = inet_diag_answers.parse_subflow_stats(data, next(framing.messages(data)))
    assert stats is not None
    assert (stats.mss, stats.lost, stats.last_sent_ms, stats.last_received_ms) == (16, 32, 44, 52)
    assert (stats.rtt_us, stats.rttvar_us, stats.ssthresh, stats.cwnd) == (68, 72, 76, 80)
    assert (stats.retransmits, stats.min_rtt_us) == (100, 148)
    assert stats.pacing_rate == long_at(104)
    assert (stats.bytes_acked, stats.bytes_received) == (long_at(120), long_at(128))
    assert stats.delivery_rate == long_at(160)
    assert (stats.bytes_sent, stats.bytes_retransmitted) == (long_at(200), long_at(208))
    assert (stats.congestion_control, stats.cookie, stats.ifindex) == ("cubic", 99, 3)


def test_a_shorter_tcp_info_has_zeros_for_what_it_lacks() -> None:
    """An older kernel's structure ends before the byte counters."""
    data = answer(attribute(2, tcp_info()[:160]))
    stats = inet_diag_answers.parse_subflow_stats(data, next(framing.messages(data)))
    assert stats is not None
    assert (stats.rtt_us, stats.min_rtt_us, stats.delivery_rate, stats.bytes_sent) == (68, 148, 0, 0)


def test_no_tcp_info_is_no_subflow() -> None:
    """TIME_WAIT and connection requests answer without INET_DIAG_INFO."""
    data = answer(attribute(4, b"cubic\0"))
    assert inet_diag_answers.parse_subflow_stats(data, next(framing.messages(data))) is None


@pytest.mark.parametrize(("length", "counted"), [(48, False), (80, True), (96, True), (128, True)])
def test_mptcp_info_of_any_kernel_is_read(length: int, counted: bool) -> None:
    """Before Linux 6.5 the structure ends without counters; later ones only append."""
    info = struct.pack("=BBB5xII", 2, 1, 3, 1, 0xA) + bytes(28) + struct.pack("=IQQQQ", 5, 6, 7, 8, 9)
    data = answer(attribute(21, struct.pack("=Q", 77)), attribute(2, info.ljust(128, b"\xff")[:length]))
    session = inet_diag_answers.parse_session_info(data, next(framing.messages(data)))
    assert session is not None
    assert (session.token, session.uid, session.inode, session.cgroup_id) == (0xA, 1000, 4711, 77)
    assert (session.extra_subflows, session.addresses_announced, session.addresses_accepted) == (2, 1, 3)
    assert session.fallback
    assert session.counted is counted
    counters = (5, 6, 7, 8, 9) if counted else (0, 0, 0, 0, 0)
    assert (session.retransmits, session.bytes_retransmitted) == counters[:2]
    assert (session.bytes_sent, session.bytes_received, session.bytes_acked) == counters[2:]
