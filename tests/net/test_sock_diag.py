# SPDX-License-Identifier: Apache-2.0
"""Dumps and look-ups of subflows and sessions, compared with ss."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator

import pytest

from pm.errors import KernelRefused
from pm.kernel import SubflowRecord, TcpState
from pm.linux.netlink.inet_diag_answers import SubflowStats
from pm.linux.netlink.inet_diag_requests import IPPROTO_MPTCP
from pm.linux.netlink.sock_diag import SockDiag, can_diagnose
from pm.model import Origin, Subflow, SubflowState
from tests.lab.lab import Lab
from tests.lab.netns import T, inside
from tests.lab.waiting import wait_equal, wait_for

SO_BINDTODEVICE = 25
STATES = {"ESTAB": TcpState.ESTABLISHED, "SYN-SENT": TcpState.SYN_SENT}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two links; the in-kernel path manager of the client joins from its second address."""
    with Lab() as lab:
        lab.ip(
            "client", "mptcp", "endpoint", "add", lab.address("client", 2), "dev", "eth1", "subflow", "backup"
        )
        yield lab


def ask(
    lab: Lab, question: Callable[[SockDiag], T], ns: str = "client", **diag_args: Callable[[str], int]
) -> T:
    """``question(diag)`` inside the namespace."""

    def inner() -> T:
        with SockDiag.open(**diag_args) as diag:
            return question(diag)

    return inside(lab.netns(ns), inner)


def dump(diag: SockDiag) -> list[SubflowRecord]:
    return [record for part in diag.dump_subflows() for record in part]


def exists(diag: SockDiag, *subflows: Subflow) -> list[bool]:
    return [bool(found) and found.is_live for found in diag.find_subflows(subflows)]  # type: ignore[union-attr]


def records(lab: Lab, ns: str = "client") -> list[SubflowRecord]:
    return ask(lab, lambda diag: dump(diag), ns)


def subflow(record: SubflowRecord) -> Subflow:
    return Subflow(
        record.local,
        record.local_port,
        record.remote,
        record.remote_port,
        Origin.PEER,
        SubflowState.ESTABLISHED,
    )


def stats(lab: Lab, found: list[SubflowRecord], ns: str = "client") -> list[SubflowStats | None]:
    # The joins of the in-kernel path manager are bound to the interface that its endpoint names.
    interfaces = {record.local: record.ifindex for record in found}
    subflows = [subflow(record) for record in found]
    return ask(lab, lambda diag: diag.subflow_stats(subflows), ns, interface_of=interfaces.__getitem__)


@pytest.mark.parametrize("family", [4, 6])
def test_a_dump_shows_what_ss_shows(lab: Lab, family: int) -> None:
    """Addresses, ports, ids, tokens and states of the initial and the joined subflow, at both ends."""
    server = lab.server("--address", lab.address("server", 1, family))
    client = lab.client(lab.address("server", 1, family))
    client.open(3)
    if family == 4:
        lab.wait_subflows(2, sessions=3)
    for ns in ("client", "server"):
        expected = {
            (
                token,
                f.local,
                f.local_port,
                f.remote,
                f.remote_port,
                f.local_id,
                f.remote_id,
                STATES[f.state],
                f.backup,
            )
            for token, flows in lab.subflows(ns).items()
            for f in flows
        }
        found = records(lab, ns)
        assert {
            (
                r.token, r.local, r.local_port, r.remote, r.remote_port, r.local_id, r.remote_id, r.state,
                r.backup or r.peer_backup,
            )
            for r in found
        } == expected  # fmt: skip
        assert {r.socket_family for r in found} == {family}
        assert all(r.opened_here == (ns == "client") for r in found)
        assert sum(r.is_initial for r in found) == 3
        # One string object per address.
        assert len({id(r.local) for r in found}) == len({r.local for r in found})
    end(lab, client, server)


def test_v4_mapped_sockets_are_ipv4_with_family_6(lab: Lab) -> None:
    """A dual-stack listener's IPv4 sessions have IPv4 text, and a look-up by that text finds them."""
    server, client = lab.server(), lab.client()
    client.open(1)
    lab.wait_subflows(2)
    found = records(lab, "server")
    assert {(r.socket_family, r.local) for r in found} == {(6, lab.address("server", 1))}
    answers = stats(lab, found, "server")
    assert [s and s.cookie for s in answers] == [r.cookie for r in found]
    end(lab, client, server)


def test_statistics_are_those_of_ss(lab: Lab) -> None:
    """Every figure of a quiet subflow after a transfer equals ``ss -tnie``; answers come in order."""
    server, client = lab.server(), lab.client()
    client.open(1)
    lab.wait_subflows(2)
    client.send(bytes=300_000)
    found = records(lab)

    def both() -> tuple[list[SubflowStats | None], list[str]]:
        return stats(lab, found), lab.run("client", "ss", "-tnieOH").splitlines()

    # The last acknowledgements may still be on their way: until both views are of one moment.
    def agrees(pair: tuple[list[SubflowStats | None], list[str]]) -> bool:
        answers, lines = pair
        return all(
            answer is not None
            and any(f" sk:{answer.cookie:x} " in line and figures(line, answer) for line in lines)
            for answer in answers
        )

    answers, _ = wait_for(both, "the same figures from both", until=agrees)
    assert sum(s.bytes_sent for s in answers if s) >= 300_000
    assert all(s and 0 < s.min_rtt_us <= s.rtt_us + s.rttvar_us * 4 for s in answers)
    assert all(s and s.last_sent_ms < 60_000 and s.last_received_ms < 60_000 for s in answers)
    assert [s and s.cookie for s in answers] == [r.cookie for r in found]
    end(lab, client, server)


def figures(line: str, answer: SubflowStats) -> bool:
    """Whether a line of ss has the figures of ``answer``. What is 0 ss leaves out."""

    def number(name: str) -> int:
        match = re.search(rf" {name}:(\d+)", line)
        return int(match[1]) if match else 0

    rtt = re.search(r" rtt:([\d.]+)/([\d.]+)", line)
    retrans = re.search(r" retrans:\d+/(\d+)", line)
    rates = {name: int(value) for name, value in re.findall(r" (pacing_rate|delivery_rate) (\d+)bps", line)}
    assert rtt is not None
    return (
        abs(float(rtt[1]) * 1000 - answer.rtt_us) < 1
        and abs(float(rtt[2]) * 1000 - answer.rttvar_us) < 1
        and number("cwnd") == answer.cwnd
        and number("mss") == answer.mss
        and number("bytes_sent") == answer.bytes_sent
        and number("bytes_acked") == answer.bytes_acked
        and number("bytes_received") == answer.bytes_received
        and number("bytes_retrans") == answer.bytes_retransmitted
        and (int(retrans[1]) if retrans else 0) == answer.retransmits
        and number("lost") == answer.lost
        and f" {answer.congestion_control} " in line
        and rates.get("delivery_rate", 0) == answer.delivery_rate * 8
        and rates.get("pacing_rate", 0) == answer.pacing_rate * 8
    )


def test_a_session_is_found_by_its_token(lab: Lab) -> None:
    """mptcp_info agrees with ``ss -M`` and with what the application moved; an unknown token is None."""
    server, client = lab.server(), lab.client()
    client.open(1)
    lab.wait_subflows(2)
    client.send(bytes=200_000)
    token = records(lab)[0].token
    info, unknown = ask(lab, lambda diag: diag.session_infos([token, token ^ 1]))
    assert unknown is None
    assert info is not None
    assert (info.token, info.state, info.fallback, info.extra_subflows) == (
        token,
        TcpState.ESTABLISHED,
        False,
        1,
    )
    assert (info.bytes_sent, info.bytes_received) == (200_001, 200_001)
    line = lab.run("client", "ss", "-MneiOH")
    assert f"token:{token:x} " in line
    assert f"ino:{info.inode}" in line
    assert f"bytes_received:{info.bytes_received} " in line or "bytes_received" not in line
    own = ask(lab, lambda diag: diag.session_figures(token))
    assert own is not None
    assert own.cgroup_id == records(lab)[0].cgroup_id != 0
    end(lab, client, server)


def test_sockets_that_are_no_subflow_are_left_out(lab: Lab) -> None:
    """Plain TCP is not in the dump, and a listener does not answer for a connection that is gone."""
    server, client = lab.server(), lab.client(None, "--tcp")
    client.open(1)
    assert records(lab) == []
    gone = Subflow(lab.address("server", 1), 5000, "192.0.2.1", 1, Origin.PEER, SubflowState.ESTABLISHED)
    assert ask(lab, lambda diag: exists(diag, gone), "server") == [False]
    end(lab, client, server)


def test_a_connection_attempt_is_a_subflow_that_is_not_established(lab: Lab) -> None:
    """A SYN without an answer shows up in SYN_SENT with the client's flags."""

    def attempt(diag: SockDiag) -> list[SubflowRecord]:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as sock:
            sock.setblocking(False)
            sock.connect_ex(("10.77.1.99", 5000))
            assert list(diag.dump_subflows(opening=True)) == list(diag.dump_subflows())
            return dump(diag)

    (record,) = ask(lab, attempt)
    assert (record.state, record.is_established, record.is_fully_established) == (
        TcpState.SYN_SENT,
        False,
        False,
    )
    assert record.is_initial
    assert record.opened_here


def test_a_socket_bound_to_an_interface_needs_its_index(lab: Lab) -> None:
    """SO_BINDTODEVICE hides a socket from look-ups without an index; an index finds unbound ones too."""
    server = lab.server()

    def connect(diag: SockDiag) -> list[bool]:
        answers = []
        for device in (b"", b"eth0"):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as sock:
                if device:
                    sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, device)
                sock.connect((lab.address("server", 1), 5000))
                for record in dump(diag):
                    if record.is_initial and record.local_port == sock.getsockname()[1]:
                        answers += exists(diag, subflow(record))
        return answers

    assert ask(lab, connect) == [True, False]
    eth0 = int(lab.ip("client", "-o", "link", "show", "eth0").split(":")[0])
    assert ask(lab, connect, interface_of=lambda ip: eth0) == [True, True]
    end(lab, server)


def test_many_subflows_are_all_found(lab: Lab) -> None:
    """A dump of many parts and look-ups in many batches lose nothing and keep their order."""
    server, client = lab.server(), lab.client()
    client.open(1500)
    found = wait_for(lambda: records(lab), "3000 subflows", until=lambda found: len(found) == 3000)
    assert len({r.cookie for r in found}) == 3000
    assert [s and s.cookie for s in stats(lab, found)] == [r.cookie for r in found]
    tokens = [r.token for r in found]
    infos = ask(lab, lambda diag: diag.session_infos(tokens))
    assert [info and info.token for info in infos] == tokens
    end(lab, client, server)


def test_a_dump_may_be_left_early_and_look_ups_go_on_meanwhile(lab: Lab) -> None:
    """The dump has a socket of its own, closed with the iterator."""
    server, client = lab.server(), lab.client()
    client.open(200)

    def question(diag: SockDiag) -> bool:
        parts = diag.dump_subflows()
        first = next(part for part in parts if part)
        found = exists(diag, *(subflow(record) for record in first if record.is_initial))
        rest = [record for part in parts for record in part]
        assert sum(record.is_initial for record in (*first, *rest)) == 200
        next(diag.dump_subflows())
        return all(found)

    assert ask(lab, question)
    end(lab, client, server)


def test_a_refused_look_up_leaves_the_next_ones_right(lab: Lab) -> None:
    """An answer that is an error is raised, and no answer of that batch is taken for a later one's."""
    server, client = lab.server(), lab.client()
    client.open(2)
    found = [record for record in records(lab) if record.is_initial]

    def question(diag: SockDiag) -> list[bool]:
        mixed = [
            Subflow("10.77.1.1", 1, "fd00::1", 1, Origin.PEER, SubflowState.OPENING),
            *map(subflow, found),
        ]
        # An IPv4 source to an IPv6 destination has no socket: the kernel says so, in order.
        assert [bool(answer) for answer in diag.subflow_stats(mixed)] == [False, True, True]
        diag.close()
        with pytest.raises(KernelRefused):
            diag.subflow_stats([subflow(found[0])])
        return [bool(answer) for answer in diag.subflow_stats([subflow(r) for r in found])]

    assert ask(lab, question) == [True, True]
    end(lab, client, server)


def test_tcp_and_mptcp_can_be_diagnosed() -> None:
    """The running kernel has both modules; a protocol that nobody diagnoses is told apart."""
    assert can_diagnose(socket.IPPROTO_TCP)
    assert can_diagnose(IPPROTO_MPTCP)
    assert not can_diagnose(socket.IPPROTO_EGP)


def end(lab: Lab, *traffic: object) -> None:
    """End traffic processes, and wait until no subflow of theirs is left for the next test."""
    for each in traffic:
        each.process.kill()  # type: ignore[attr-defined]
        each.process.wait()  # type: ignore[attr-defined]
    wait_equal(lambda: (records(lab, "client"), records(lab, "server")), ([], []))
