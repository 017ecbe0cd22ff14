# SPDX-License-Identifier: GPL-2.0-only
"""What is on the wire, byte by byte: which packets carry options, and which never do."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from pm.linux.option_layouts import BUILT_IN
from tests.net.inject import ETH_HEADER, ETH_P_ALL, IP_HEADER
from tests.net.inside import inside
from tests.net.lab import Lab
from tests.net.options import ACCEPT, ALGORITHMS, ASKED, SEND, Connection, start

IPV6_HEADER = 40
SYN = 2
WIRE = {
    "user_timeout": "1c04001e",
    "initial_window": "fd064d490014",
    "congestion_control": f"fd054d43{ALGORITHMS[ASKED]:02x}",
    "delayed_ack": "fd064d441000",
}


class Packet(NamedTuple):
    from_client: bool
    flags: int
    payload: int
    options: list[str]
    """Hex, without NOPs."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(client=1, server=1) as lab:
        for cgroup in ("client", "server"):
            lab.cgroup(cgroup)
        start(lab, {"client": SEND}, {"server": ACCEPT})
        yield lab


def capture(lab: Lab, act: Callable[[], object]) -> list[Packet]:
    """TCP packets to and from port 5000 on the client's interface while ``act()`` runs."""

    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.bind(("eth0", ETH_P_ALL))
        sock.settimeout(0.2)
        return sock

    packets: list[Packet] = []
    with inside(lab.netns("client"), opened) as sock:
        act()
        while True:
            try:
                frame = sock.recv(1 << 16)
            except TimeoutError:
                return packets
            version, ip = frame[12:14], frame[ETH_HEADER:]
            if version == b"\x08\x00" and ip[9] == socket.IPPROTO_TCP:
                tcp = ip[IP_HEADER : struct.unpack_from("!H", ip, 2)[0]]
            elif version == b"\x86\xdd" and ip[6] == socket.IPPROTO_TCP:
                tcp = ip[IPV6_HEADER : IPV6_HEADER + struct.unpack_from("!H", ip, 4)[0]]
            else:
                continue
            header = (tcp[12] >> 4) * 4
            packets.append(
                Packet(
                    from_client=struct.unpack_from("!H", tcp, 2)[0] == 5000,
                    flags=tcp[13],
                    payload=len(tcp) - header,
                    options=list(options_of(tcp[20:header])),
                )
            )


def options_of(data: bytes) -> Iterator[str]:
    while data:
        if data[0] == 1:
            data = data[1:]
            continue
        length = data[1]
        assert 2 <= length <= len(data)
        yield data[:length].hex()
        data = data[length:]


def ours(packet: Packet) -> list[str]:
    return [option for option in packet.options if option[:2] in ("1c", "fd")]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("mptcp", [False, True], ids=["tcp", "mptcp"])
def test_packets(lab: Lab, family: int, mptcp: bool) -> None:
    """No SYN has an option; the third packet is the first; all follow, well-formed; then there is silence."""

    def talk() -> None:
        with Connection(lab, family=family, mptcp=mptcp) as connection:
            for _ in range(4):
                connection.exchange(answer=20_000)

    packets = capture(lab, talk)
    syns = [p for p in packets if p.flags & SYN]
    assert syns
    assert all(ours(p) == [] for p in syns)
    sent = [p for p in packets if p.from_client and not p.flags & SYN]
    assert WIRE["initial_window"] in ours(sent[0])
    assert {option for p in packets for option in ours(p)} == set(WIRE.values())
    assert all(not ours(p) for p in packets if not p.from_client)
    if not mptcp:
        assert ours(sent[0]) == [WIRE[name] for name in BUILT_IN]
        assert not any(ours(p) for p in sent[len(sent) // 2 :])
