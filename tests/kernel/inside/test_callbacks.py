# SPDX-License-Identifier: Apache-2.0
"""The callbacks of a session's life: which come, when, and with what."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import socket
import struct

from tests.lab.middlebox import middlebox
from tests.lab.oracle import read_subflows
from tests.lab.recorder import CLAIM, REFUSE, Flag, Op, Recorder, address
from tests.lab.two_hosts import Socket, TwoHosts, disconnect, exchange
from tests.lab.waiting import wait_equal, wait_for

# TFO_CLIENT_ENABLE, TFO_SERVER_ENABLE, TFO_CLIENT_NO_COOKIE, TFO_SERVER_COOKIE_NOT_REQD
FAST_OPEN_WITHOUT_COOKIES = 0x1 | 0x2 | 0x4 | 0x200


def token_of(key: int) -> int:
    """RFC 8684 section 3.2: the first 32 bits of the SHA-256 of the key as on the wire."""
    return int(struct.unpack(">I", hashlib.sha256(struct.pack(">Q", key)).digest()[:4])[0])


def test_client_and_server_see_the_life_of_a_session(
    hosts: TwoHosts, client: Recorder, server: Recorder
) -> None:
    """NEW_SESSION, FULLY_ESTABLISHED and CLOSE_SESSION come once each, in this order, at both ends."""
    ends = hosts.connect(hosts.listen())
    for end in ends:
        end.close()
    wait_equal(lambda: (client.count(Op.CLOSE_SESSION), server.count(Op.CLOSE_SESSION)), (1, 1))
    for recorder, is_server in ((client, 0), (server, 1)):
        new, established, close = recorder.events()
        assert [new.op, established.op, close.op] == [100, 101, 102]
        assert new.args[:2] == (0, is_server)
        assert established.args[:2] == (1, 1)
        assert close.args[0] == 0
        assert new.flags & ~Flag.ESTABLISHED == Flag.MASTER | Flag.SERVER * is_server
        assert established.flags & Flag.CLAIMED
        assert len({e.tokens for e in (new, established, close)}) == 1


def test_tokens_are_those_of_the_keys(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """Both ends have both keys, crossed, and the tokens that RFC 8684 derives from them."""
    hosts.connect(hosts.listen())
    here, there = client.events(Op.FULLY_ESTABLISHED)[0], server.events(Op.FULLY_ESTABLISHED)[0]
    assert here.keys == there.keys[::-1]
    assert all(here.keys)
    assert here.tokens == there.tokens[::-1]
    assert here.tokens == (token_of(here.keys[0]), token_of(here.keys[1]))


def test_c_flag_of_the_peer(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """A peer that wants no join to its initial address shows in mptcp_flags, from NEW_SESSION on."""
    listener = hosts.listen()
    for host, denied, allowed in ((hosts.server, client, server), (hosts.client, server, client)):
        host.sysctl("net.mptcp.allow_join_initial_addr_port", 0)
        hosts.connect(listener)
        assert [bool(e.flags & Flag.DENY_JOIN_ID0) for e in denied.events()[-2:]] == [True, True]
        assert not any(e.flags & Flag.DENY_JOIN_ID0 for e in allowed.events()[-2:])
        host.sysctl("net.mptcp.allow_join_initial_addr_port", 1)


def test_no_callback_without_mptcp(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """Plain TCP sockets make no MPTCP callback."""
    hosts.connect(hosts.listen(protocol=socket.IPPROTO_TCP), protocol=socket.IPPROTO_TCP)
    assert client.events() == []
    assert server.events() == []


def test_unclaimed_session_gets_new_session_only(hosts: TwoHosts, client: Recorder) -> None:
    """A program that does not claim hears of the session once, whatever else it replies."""
    listener = hosts.listen()
    for reply in (0, 1, 0xFFFFFFFF):
        client.reply(new_session=reply)
        for end in hosts.connect(listener):
            end.close()
    assert [e.op for e in client.events()] == [Op.NEW_SESSION] * 3
    assert hosts.client.counter("BPFClaimed") == 0


def test_peer_without_mptcp(hosts: TwoHosts, client: Recorder) -> None:
    """The program hears nothing of a connection that is plain TCP from the start."""
    hosts.connect(hosts.listen(protocol=socket.IPPROTO_TCP))
    assert client.events() == []


def test_fallback_closes_the_session(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """A session that falls back to TCP after its start ends with CLOSE_SESSION(1), once; data still flow."""
    client.act(0, Op.CLOSE_SESSION, "open")
    with middlebox(hosts):
        ends = hosts.connect(hosts.listen("10.3.0.2"), "10.3.0.2")
        wait_for(lambda: client.count(Op.CLOSE_SESSION), "fallback")
        exchange(*ends, b"y" * 5000)
        for end in ends:
            end.close()
    new, close = client.events()
    assert (new.op, close.op) == (Op.NEW_SESSION, Op.CLOSE_SESSION)
    assert close.args[0] == 1
    assert close.flags & Flag.FALLBACK
    assert close.results[0] == -errno.ENOTCONN
    assert new.tokens == close.tokens
    assert server.events() == [], "without the third ACK's option there is no session at the server"


def test_subflow_callbacks_at_both_ends(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """An additional subflow is asked for, established and closed at both ends, with its ids."""
    client.act(0, Op.FULLY_ESTABLISHED, "open", address("10.2.0.1"), address("10.1.0.2"))
    hosts.server.ip("route", "add", "10.2.0.1/32", "dev", "eth2")
    hosts.client.ip("route", "add", "10.1.0.2/32", "dev", "eth1")
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    wait_for(lambda: client.count(Op.SUBFLOW_ESTABLISHED) and server.count(Op.SUBFLOW_ESTABLISHED), "subflow")
    (here,), (there,) = client.events(Op.SUBFLOW_ESTABLISHED), server.events(Op.SUBFLOW_ESTABLISHED)
    (request,) = server.events(Op.JOIN_REQUEST)
    assert here.args == (0, 1, 0, 0)
    assert there.args == (0, 0, 1, 0)
    assert request.args == (0, 0, 1, 0)
    assert here.flags & Flag.JOIN
    assert not here.flags & Flag.MASTER
    assert client.events(Op.FULLY_ESTABLISHED)[0].tokens == here.tokens
    exchange(*ends, b"y" * 10000)
    wait_equal(lambda: client.count(Op.FULLY_ESTABLISHED), 2)
    assert client.events(Op.FULLY_ESTABLISHED)[1].args[:2] == (0, 0)


def test_add_and_remove_address(hosts: TwoHosts, client: Recorder) -> None:
    """ADD_RADDR has id, family, port and address of either family, REM_RADDR the id."""
    hosts.server.mptcp("endpoint", "add", "10.2.0.2", "id", "7", "signal")
    hosts.connect(hosts.listen("0.0.0.0"))
    wait_equal(lambda: client.count(Op.ADD_RADDR), 1)
    (add,) = client.events(Op.ADD_RADDR)
    assert add.raddr == (7, socket.AF_INET, 0, socket.inet_aton("10.2.0.2"))
    assert add.args[:3] == (7, socket.AF_INET, 0)
    assert add.args[3] == int.from_bytes(socket.inet_aton("10.2.0.2"), "little")
    hosts.server.mptcp("endpoint", "add", "fd00:2::2", "id", "8", "signal")
    wait_equal(lambda: client.count(Op.ADD_RADDR), 2)
    assert client.events(Op.ADD_RADDR)[1].raddr == (
        8,
        socket.AF_INET6,
        0,
        socket.inet_pton(socket.AF_INET6, "fd00:2::2"),
    )
    hosts.server.mptcp("endpoint", "delete", "id", "7")
    wait_equal(lambda: client.count(Op.REM_RADDR), 1)
    assert client.events(Op.REM_RADDR)[0].args[0] == 7


def test_refused_join(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """A JOIN_REQUEST answered with BPF_MPTCP_REFUSE resets the subflow; the peer's program learns of it."""
    server.reply(new_session=CLAIM, join_request=REFUSE)
    client.act(0, Op.FULLY_ESTABLISHED, "open")
    hosts.connect(hosts.listen())
    wait_for(lambda: client.count(Op.SUBFLOW_CLOSED), "refusal")
    (closed,) = client.events(Op.SUBFLOW_CLOSED)
    assert closed.args[0] != 0
    assert hosts.server.counter("BPFJoinRefused") == 1
    assert server.count(Op.SUBFLOW_ESTABLISHED) == 0
    assert len(hosts.client.subflows()) == 1


def test_never_accepted_session_is_closed_once(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """A session that no accept() took ends with one CLOSE_SESSION, by its peer or with its listener."""
    listener = hosts.listen()
    for _ in range(5):
        sock = hosts.keep(hosts.client.socket())
        sock.connect(("10.1.0.2", 5000))
        sock.sendall(b"x")
    wait_equal(lambda: server.count(Op.NEW_SESSION), 5)
    listener.close()
    wait_equal(lambda: server.count(Op.CLOSE_SESSION), 5)


def test_disconnect_closes_and_a_new_session_begins(hosts: TwoHosts, client: Recorder) -> None:
    """connect(AF_UNSPEC) ends the session for its program; connecting again makes another."""
    listener = hosts.listen()
    sock, _ = hosts.connect(listener)
    disconnect(sock)
    assert client.count(Op.CLOSE_SESSION) == 1
    sock.connect(("10.1.0.2", 5000))
    hosts.keep(listener.accept()[0])
    assert client.count(Op.NEW_SESSION) == 2
    tokens = {e.tokens for e in client.events(Op.NEW_SESSION)}
    assert len(tokens) == 2


def fast_open(hosts: TwoHosts) -> tuple[Socket, Socket]:
    """The client's end and the server's of a session whose first segment has data, and was read."""
    for host in (hosts.client, hosts.server):
        host.sysctl("net.ipv4.tcp_fastopen", FAST_OPEN_WITHOUT_COOKIES)
    listener = hosts.listen()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    sock = hosts.keep(hosts.client.socket())
    timeout = sock.gettimeout()
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        sock.sendto(b"x", socket.MSG_FASTOPEN, ("10.1.0.2", 5000))
    sock.settimeout(timeout)
    peer = hosts.keep(listener.accept()[0])
    assert peer.recv(1) == b"x"
    assert hosts.server.counter("TCPFastOpenPassive", "TcpExt") == 1
    return sock, peer


def test_server_with_fast_open(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """NEW_SESSION waits for the client's key, which comes after the first data; accept() does not."""
    sock, peer = fast_open(hosts)
    exchange(sock, peer)
    (ours,), (theirs,) = (recorder.events(Op.NEW_SESSION) for recorder in (client, server))
    assert all(theirs.keys)
    assert (theirs.keys, theirs.tokens) == (ours.keys[::-1], ours.tokens[::-1])
    assert server.count(Op.FULLY_ESTABLISHED) == 1
    peer.close()
    wait_equal(lambda: server.count(Op.CLOSE_SESSION), 1)


def test_fast_open_and_closed_before_the_key(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """A session that its application closed before the client's key came is nobody's: it is not claimed."""
    hosts.client.run("tc", "qdisc", "add", "dev", "eth1", "root", "netem", "delay", "500ms")
    _, peer = fast_open(hosts)
    peer.close()
    assert server.count(Op.NEW_SESSION) == 0
    fully_established = "e"  # as ss has it
    wait_for(
        lambda: [f for found in read_subflows("server").values() for f in found],
        "the client's key",
        until=lambda flows: any(fully_established in flow.flags for flow in flows),
    )
    assert hosts.server.counter("BPFClaimed") == server.count(Op.NEW_SESSION) == 0
