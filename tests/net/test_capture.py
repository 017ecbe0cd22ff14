# SPDX-License-Identifier: Apache-2.0
"""The parser of packets, against tshark; the options of every subflow of an MPTCP connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pm.linux.bpf.tcp_option_layouts import BUILT_IN
from tests.lab.capture import NOP, RST, SYN, Capture, Option, Segment, parse_options
from tests.lab.commands import run
from tests.lab.lab import Lab
from tests.lab.scenarios import config, policy
from tests.lab.tcp_options import ACCEPT, SEND, WIRE, Connection, with_options

FIELDS = ("tcp.srcport", "tcp.seq_raw", "tcp.len", "tcp.option_kind", "tcp.option_len")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two paths from the client, which asks for everything; the server accepts everything."""
    with Lab(client=2, server=1) as lab:
        for cgroup in ("client", "server"):
            lab.cgroup(cgroup)
        lab.service(config(policy(lab, "client", "fullmesh", options=dict(SEND))))
        lab.service(with_options(lab, {"server": ACCEPT}), ns="server")
        yield lab


def of_plugins(segment: Segment) -> list[Option]:
    return [option for option in segment.options if option in WIRE.values()]


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def test_parser_agrees_with_tshark(lab: Lab, tmp_path: Path) -> None:
    """Ports, sequence numbers, payload, kinds and lengths of the same packets: TCP, MPTCP, both families."""
    with Capture(lab.netns("client")) as capture:
        for family, mptcp in ((4, False), (4, True), (6, False), (6, True)):
            with Connection(lab, family=family, mptcp=mptcp) as connection:
                connection.exchange(answer=100_000)
        ours = [
            (
                s.source[1],
                s.sequence,
                s.payload,
                [option.kind for option in s.options],
                [option.length for option in s.options if option.kind != NOP],
            )
            for s in capture.segments()
        ]
        capture.write(tmp_path / "packets.pcap")
    fields = [argument for field in FIELDS for argument in ("-e", field)]
    shown = run("tshark", "-r", str(tmp_path / "packets.pcap"), "-Y", "tcp", "-T", "fields", *fields)
    theirs = []
    for line in shown.splitlines():
        port, sequence, payload, kinds, lengths = line.split("\t")
        theirs.append((int(port), int(sequence), int(payload), numbers(kinds), numbers(lengths)))
    assert len(ours) > 40
    assert ours == theirs
    assert {28, 30, 253} <= {kind for *_, kinds, _ in ours for kind in kinds}


@pytest.mark.parametrize(
    ("wire", "parsed"),
    [
        ("", []),
        ("00", []),
        ("0101", [Option(NOP, b""), Option(NOP, b"")]),
        ("1c04001e", [Option(28, b"\x00\x1e")]),
        ("011c", [Option(NOP, b"")]),  # no length
        ("1c04001e fd064d49", [Option(28, b"\x00\x1e")]),  # cut off
        ("1c00 1c04001e", []),
        ("1c01 1c04001e", []),
        ("00 1c04001e", []),  # after the end of the list
        ("fd02", [Option(253, b"")]),
    ],
)
def test_malformed_options(wire: str, parsed: list[Option]) -> None:
    """The parser stops where the kernel's does."""
    assert list(parse_options(bytes.fromhex(wire))) == parsed


@pytest.mark.parametrize("family", [4, 6])
def test_every_subflow_carries_options_and_falls_silent(lab: Lab, family: int) -> None:
    """Initial subflow and join: no SYN has an option, each option is sent, the last packets have none."""
    with ExitStack() as stack:
        captures = [
            stack.enter_context(Capture(lab.netns("client"), interface)) for interface in ("eth0", "eth1")
        ]
        with Connection(lab, family=family, mptcp=True) as connection:
            connection.exchange()
            lab.wait_subflows(2)
            for _ in range(120):  # the join may get a small part of it only
                connection.exchange(answer=200_000)
            subflows = [capture.segments() for capture in captures]
    for link, segments in enumerate(subflows, start=1):
        own = lab.address("client", link, family)
        assert not any(of_plugins(s) for s in segments if s.flags & (SYN | RST))
        assert not any(of_plugins(s) for s in segments if s.source[0] != own)
        sent = [s for s in segments if s.source[0] == own and not s.flags & SYN]
        assert {o for s in sent for o in of_plugins(s)} == {WIRE[name] for name in BUILT_IN}
        last = max(i for i, s in enumerate(sent) if of_plugins(s))
        assert last < 300  # SILENT_AFTER_PACKETS, and those the interface has merged
        assert len(sent) - last > 50
