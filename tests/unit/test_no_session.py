# SPDX-License-Identifier: Apache-2.0
"""Why a connection is no MPTCP session, from what sock_diag told. On the kernel: tests/net."""

from __future__ import annotations

from typing import Any

import pytest

from pm.api.socket_report import what_matters
from pm.kernel import SessionInfo, SocketRecord, TcpState, UlpFlag
from pm.no_session import SOCKETS_MAX, Chosen, MptcpState, explain
from tests.unit.builders import REMOTE, REMOTE_PORT, listener, socket_record

ASKED, AGREED = UlpFlag.MCAP_LOC, UlpFlag.MCAP_LOC | UlpFlag.MCAP_REM


def state(counters: dict[str, int] | None = None, *, enabled: bool = True) -> MptcpState:
    return MptcpState(enabled, 3600, (32768, 60999), counters or {})


def info(*, fallback: bool, remote_key: bool = False) -> SessionInfo:
    return SessionInfo(0x1234, 1, 0, 11, 7, fallback, 0, 0, 0, True, 0, 0, 0, 0, 0, remote_key)


def mptcp(**fields: Any) -> SocketRecord:
    return socket_record(mptcp=True, **{"token": 0x1234, "flags": AGREED, **fields})


def said(
    socket: SocketRecord,
    *around: SocketRecord,
    fallback: bool | None = None,
    of: MptcpState | None = None,
) -> list[tuple[str, bool]]:
    """(code, likely) of the findings."""
    session = None if fallback is None else info(fallback=fallback)
    return [(f.code, f.likely) for f in explain(socket, session, around, of or state())]


def test_a_session_that_works_has_no_finding() -> None:
    """Nor has a listener that offers MPTCP."""
    assert said(mptcp(), fallback=False) == []
    assert said(listener(mptcp=True)) == []


@pytest.mark.parametrize(
    ("flags", "token", "code"),
    [
        (AGREED, 1, "fell_back"),
        (ASKED, 1, "peer_without_mptcp"),
        (0, 1, "syn_dropped"),
        (0, 0, "mptcp_not_asked"),
    ],
)
def test_where_it_was_lost_is_in_the_flags(flags: int, token: int, code: str) -> None:
    """After the handshake, in the answer, in the SYN that was sent again, or before the first."""
    fallback = True if token else None
    assert [code for code, _ in said(mptcp(flags=flags, token=token), fallback=fallback)] == [code]


def test_the_key_of_the_peer_shows_that_it_spoke_mptcp() -> None:
    """Also where its first data came without, and the subflow has forgotten."""
    found = explain(mptcp(flags=ASKED), info(fallback=True, remote_key=True), (), state())
    assert [f.code for f in found] == ["fell_back"]


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        ({"DssFallback": 1}, ["options_removed"]),
        ({"MPCapableDataFallback": 2, "InfiniteMapRx": 1}, ["options_removed", "peer_fell_back"]),
        ({"DataCsumErr": 1}, ["payload_changed"]),
        ({"DSSCorruptionFallback": 1}, ["mapping_damaged"]),
        ({"MPCapableFallbackACK": 1}, []),
    ],
)
def test_counters_only_make_it_likely(counters: dict[str, int], expected: list[str]) -> None:
    """They are of the whole namespace: any other connection may have increased them."""
    found = said(mptcp(), fallback=True, of=state(counters))
    assert found == [("fell_back", False), *((code, True) for code in expected)]


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        ({"MPCapableSYNTXDisabled": 1}, [("blackhole", False)]),
        ({"MD5SigFallback": 1}, [("md5_signature", False)]),
        ({"MPFallbackTokenInit": 1}, [("no_token", False)]),
        ({"MPCapableSYNTXDisabled": 1, "MD5SigFallback": 1}, [("blackhole", True), ("md5_signature", True)]),
    ],
)
def test_a_syn_without_mptcp_has_few_causes(
    counters: dict[str, int], expected: list[tuple[str, bool]]
) -> None:
    """Where only one of them ever happened here, it is the one."""
    assert said(mptcp(flags=0, token=0), of=state(counters)) == expected


def test_no_answer_yet() -> None:
    """While the SYN is on its way, nothing is known of the peer; a plain socket stays plain."""
    opening = {"state": TcpState.SYN_SENT, "retransmits": 3}
    assert said(mptcp(flags=ASKED, **opening), fallback=False) == [("unanswered", False)]
    assert said(mptcp(flags=0, **opening), fallback=True) == [("unanswered", False)]
    assert said(socket_record(**opening)) == [("plain_socket", False)]
    assert said(mptcp(flags=0, token=0, **opening), of=state({"MPCapableSYNTXDisabled": 1})) == [
        ("blackhole", False)
    ]


def test_the_listener_tells_which_end_is_plain() -> None:
    """Without one, whoever opened it; a guess where the port is not one that the kernel chooses."""
    accepted = socket_record(local_port=80, remote_port=40000)
    assert said(accepted, listener()) == [("plain_listener", False)]
    assert said(accepted, listener(mptcp=True)) == [("client_without_mptcp", False)]
    assert said(accepted, listener(local_port=81)) == [("plain_socket", True)]
    assert said(socket_record()) == [("plain_socket", False)]


def test_the_most_exact_listener_accepts() -> None:
    """As the kernel looks it up: the address, then any of the family, then any of both; and the interface."""
    accepted = socket_record(local_port=80)
    plain, other = [("plain_listener", False)], [("client_without_mptcp", False)]
    exact, both = listener(local="10.0.1.1"), listener(local="::")
    assert said(accepted, listener(mptcp=True), exact, both) == plain
    assert said(accepted, listener(mptcp=True), both) == other
    assert said(accepted, both, listener(local="10.0.1.2", mptcp=True)) == plain
    assert said(socket_record(local="fd00::1", local_port=80), listener(mptcp=True), both) == plain
    bound = listener(ifindex=3)
    assert said(socket_record(local_port=80, ifindex=3), listener(mptcp=True), bound) == plain
    assert said(accepted, listener(mptcp=True), bound) == other


def test_one_of_several_listeners_accepted_it() -> None:
    """SO_REUSEPORT, as a server does that changes to MPTCP: nobody can tell which one."""
    accepted = socket_record(local_port=80)
    assert said(accepted, listener(), listener(mptcp=True)) == [("plain_listener", True)]


def test_switched_off_is_said_of_whatever_is_plain() -> None:
    """Also of a listener that was made before."""
    off = state(enabled=False)
    assert said(socket_record(), of=off) == [("plain_socket", False), ("mptcp_disabled", False)]
    assert said(listener(mptcp=True), of=off) == [("mptcp_disabled", False)]
    assert said(mptcp(), fallback=False, of=off) == []


def test_both_ends_here() -> None:
    """The listener of the other end is named."""
    client = mptcp(flags=ASKED)
    other = socket_record(
        local=client.remote, local_port=client.remote_port, remote="10.0.1.1", remote_port=40000
    )
    (found,) = explain(client, info(fallback=True), (other, listener(local_port=client.remote_port)), state())
    assert found.evidence[0] == "0.0.0.0:5201 listens as plain TCP"


def test_one_socket_stands_for_a_session() -> None:
    """Its initial subflow, if that is there."""
    initial = mptcp()
    join = mptcp(local="10.0.2.1", flags=UlpFlag.JOIN_LOC)
    for sockets in ((initial, join), (join, initial)):
        chosen = Chosen(lambda _: True)
        chosen.add(sockets)
        assert chosen.sockets == [initial]


def test_the_answer_has_a_bound() -> None:
    """What is beyond it is counted; what is not asked for is not."""
    chosen = Chosen(lambda socket: socket.local_port > 1)
    chosen.add(socket_record(local_port=port) for port in range(1, SOCKETS_MAX + 12))
    assert (len(chosen.sockets), chosen.left_out, chosen.looked_at) == (SOCKETS_MAX, 10, SOCKETS_MAX + 11)


def test_a_neighbour_with_many_listeners_hides_none() -> None:
    """Only those matter that can have accepted the connection, and one of those that are alike."""
    accepted = socket_record(local_port=80)
    key = what_matters([accepted])
    strangers = [listener(local=f"127.0.{i >> 8}.{i & 255}") for i in range(2000)]
    assert not any(
        map(key, [*strangers, listener(local_port=81), socket_record(local_port=80, remote="10.0.9.2")])
    )
    assert key(listener(inode=1)) == key(listener(inode=2))
    kinds = [listener(), listener(mptcp=True), listener(ifindex=3), listener(local="::")]
    kinds += [listener(local="10.0.1.1"), listener(local=REMOTE, local_port=REMOTE_PORT)]
    other = socket_record(local=REMOTE, local_port=REMOTE_PORT, remote="10.0.1.1", remote_port=80)
    assert len({key(socket) for socket in (*kinds, other)} - {None}) == len(kinds) + 1
