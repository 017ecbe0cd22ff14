# SPDX-License-Identifier: Apache-2.0
"""Sessions that are over, or that one end has ended: what programs are told of them, and may ask for."""

from __future__ import annotations

import errno
import select
import socket
import struct

import pytest

from tests.lab.oracle import read_subflows
from tests.lab.path_manager_programs import accept_joins, end_subflow
from tests.lab.recorder import Op, Recorder, address
from tests.lab.sock_ops import SockOpsProgram
from tests.lab.two_hosts import TwoHosts, disconnect, exchange
from tests.lab.waiting import wait_equal, wait_for

BACKUP, ANNOUNCE, PRIO, WITHDRAW = 1, 2, 4, 8
UNTRIED = 1  # of programs/sockopts.c


def is_over(end: socket.socket) -> bool:
    poll = select.poll()
    poll.register(end, select.POLLIN)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def test_session_that_is_over(hosts: TwoHosts, client: Recorder) -> None:
    """The last subflow is gone for longer than close_timeout, and the application has not closed yet.

    Its owner is called no more before CLOSE_SESSION, and no request of it waits.
    """
    hosts.client.sysctl("net.mptcp.close_timeout", 1)
    end, _ = hosts.connect(hosts.listen())
    hosts.client.run("ss", "-K", "-tn", "dport", "=", "5000")
    wait_for(lambda: is_over(end), "the end of the session")
    (token,) = (event.tokens[0] for event in client.events(Op.NEW_SESSION))
    before = len(client.events(Op.ADDRESS_CHANGED))
    other, _ = hosts.connect(hosts.listen("10.1.0.2", 5001))
    hosts.client.ip("addr", "add", "10.2.0.5/24", "dev", "eth2")
    called = wait_for(lambda: client.events(Op.ADDRESS_CHANGED)[before:], "the call of the other session")
    assert token not in {event.tokens[0] for event in called}
    client.act(1, Op.CLOSE_SESSION, "open", remaining=2)
    end.close()
    other.close()
    wait_equal(lambda: client.count(Op.CLOSE_SESSION), 2)
    assert {event.results[1] for event in client.events(Op.CLOSE_SESSION)} == {-errno.ENOTCONN}


def test_session_whose_last_subflow_this_host_closed(hosts: TwoHosts, client: Recorder) -> None:
    """It is not over after close_timeout, which another session shows, and its owner is called."""
    hosts.client.sysctl("net.mptcp.close_timeout", 1)
    other, _ = hosts.connect(hosts.listen("10.1.0.2", 5001))
    end, _ = hosts.connect(hosts.listen())
    token = client.events(Op.NEW_SESSION)[1].tokens[0]
    flow = next(f for f in hosts.client.subflows() if f.remote_port == 5000)
    end_subflow(hosts.client, token, flow)
    hosts.client.run("ss", "-K", "-tn", "dport", "=", "5001")
    wait_for(lambda: is_over(other), "the end of the other session")
    assert not is_over(end)
    before = len(client.events(Op.ADDRESS_CHANGED))
    hosts.client.ip("addr", "add", "10.2.0.5/24", "dev", "eth2")
    wait_for(lambda: token in {e.tokens[0] for e in client.events(Op.ADDRESS_CHANGED)[before:]}, "its call")


def test_requests_that_the_end_overtakes(hosts: TwoHosts, server: Recorder) -> None:
    """They count as failed: here a listener is closed before accept(), for which they waited."""
    server.act(0, Op.FULLY_ESTABLISHED, "open", times=3)
    listener = hosts.listen()
    sock = hosts.keep(hosts.client.socket())
    sock.connect(("10.1.0.2", 5000))
    sock.sendall(b"x")
    wait_equal(lambda: hosts.server.counter("BPFReq"), 3)
    assert hosts.server.counter("BPFReqFailed") == 0
    listener.close()
    wait_equal(lambda: hosts.server.counter("BPFReqFailed"), 3)


@pytest.mark.parametrize("first", ["this end", "the peer"])
@pytest.mark.parametrize("ip", ["10.1.0.2", "fd00:1::2"])
def test_half_closed_session(hosts: TwoHosts, client: Recorder, ip: str, first: str) -> None:
    """After shutdown(SHUT_WR) of either end, the end of a subflow is still told.

    Subflows can be closed, made backups, and addresses withdrawn; what would add a path is ENOTCONN at once.
    """
    accept_joins(hosts)
    second = ("10.2.0.1", "10.2.0.2") if ip == "10.1.0.2" else ("fd00:2::1", "fd00:2::2")
    third = second[0][:-1] + "7"
    hosts.client.ip("addr", "add", f"{third}/{64 if ':' in ip else 24}", "dev", "eth2", "nodad")
    client.act(0, Op.FULLY_ESTABLISHED, "open", address(second[0]), address(second[1]))
    client.act(1, Op.FULLY_ESTABLISHED, "open", address(third), address(second[1]))
    ends = hosts.connect(hosts.listen("::"), ip)
    wait_equal(lambda: client.count(Op.SUBFLOW_ESTABLISHED), 2)
    wait_equal(lambda: len(hosts.server.subflows()), 3)
    closes, reads = ends if first == "this end" else ends[::-1]
    closes.shutdown(socket.SHUT_WR)
    assert reads.recv(1) == b""
    wait_for(lambda: hosts.client.run("ss", "-HMan", "state", "established") == "", "half closed")

    (token,) = (event.tokens[0] for event in client.events(Op.NEW_SESSION))
    client.act(0, Op.SUBFLOW_CLOSED, "open", address(second[0]), address(second[1]))
    client.act(1, Op.SUBFLOW_CLOSED, "open", address("10.9.0.1", id=9, flags=ANNOUNCE))
    client.act(2, Op.SUBFLOW_CLOSED, "open", address(ip[:-1] + "1", flags=PRIO | BACKUP))
    client.act(3, Op.SUBFLOW_CLOSED, "close", address(third, flags=WITHDRAW))
    flow = next(f for f in hosts.client.subflows() if f.local == second[0])
    end_subflow(hosts.client, token, flow)
    told = wait_for(lambda: client.events(Op.SUBFLOW_CLOSED), "SUBFLOW_CLOSED")[0]
    assert told.args[0] == 0
    assert told.results == (-errno.ENOTCONN, -errno.ENOTCONN, 0, 0)
    wait_equal(lambda: client.count(Op.SUBFLOW_CLOSED), 2)
    wait_equal(lambda: client.count(Op.REQUEST_DONE), 2)
    assert [e.args[0] for e in client.events(Op.REQUEST_DONE)] == [0, 0]
    assert hosts.client.counter("BPFReqFailed") == 0
    wait_equal(lambda: hosts.server.counter("MPPrioRx"), 1)
    reads.sendall(b"y" * 1000)
    assert len(closes.recv(1000, socket.MSG_WAITALL)) == 1000


def test_options_of_sockets_that_may_be_destroyed(hosts: TwoHosts) -> None:
    """Where the socket of a callback can be destroyed already, its options are EOPNOTSUPP."""
    program = SockOpsProgram("sockopts")
    for results in ("set_results", "get_results"):
        for op in Op:
            program.write(results, op - Op.NEW_SESSION, UNTRIED.to_bytes(4, "little"))
    program.attach(hosts.client.cgroup)
    accept_joins(hosts)
    ends = hosts.connect(hosts.listen())
    hosts.client.ip("addr", "add", "10.2.0.5/24", "dev", "eth2")
    wait_for(
        lambda: all(
            program.integers("get_results")[op - Op.NEW_SESSION] != UNTRIED
            for op in (Op.SUBFLOW_CLOSED, Op.REQUEST_DONE, Op.ADDRESS_CHANGED)
        ),
        "the callbacks of a living session",
    )
    exchange(*ends)
    ends[0].close()
    wait_for(
        lambda: program.integers("get_results")[Op.CLOSE_SESSION - Op.NEW_SESSION] != UNTRIED, "CLOSE_SESSION"
    )
    for results in ("set_results", "get_results"):
        found = dict(zip(Op, program.integers(results), strict=True))
        for op in (Op.SUBFLOW_CLOSED, Op.REQUEST_DONE, Op.ADDRESS_CHANGED, Op.CLOSE_SESSION):
            assert found[op] == -errno.EOPNOTSUPP, (results, op)
        for op in (Op.NEW_SESSION, Op.FULLY_ESTABLISHED, Op.SUBFLOW_ESTABLISHED):
            assert found[op] == 0, (results, op)
    program.detach()


def test_options_of_a_subflow_that_may_be_refused(hosts: TwoHosts, client: Recorder) -> None:
    """In JOIN_REQUEST they can be read only: the limit refuses two of the three after that."""
    program = SockOpsProgram("sockopts")
    program.attach(hosts.server.cgroup)
    hosts.server.sysctl("net.mptcp.bpf_max_subflows", 1)
    client.act(0, Op.FULLY_ESTABLISHED, "open", times=3)
    ends = hosts.connect(hosts.listen())
    wait_equal(lambda: client.count(Op.SUBFLOW_CLOSED), 3)  # the program closes the one that it has
    kind = Op.JOIN_REQUEST - Op.NEW_SESSION
    assert program.integers("set_results")[kind] == -errno.EOPNOTSUPP
    assert program.integers("get_results")[kind] == 0
    exchange(*ends)
    program.detach()


def test_subflow_that_outlives_its_session(hosts: TwoHosts) -> None:
    """It is closed, and repeats its FIN: it may ask for subflows, but not of its socket's next session."""
    accept_joins(hosts)
    program = SockOpsProgram("outlived")
    program.write("results", 0, struct.pack("=i", UNTRIED))
    program.attach(hosts.client.cgroup)
    listener = hosts.listen("0.0.0.0")
    end, _ = hosts.connect(listener)
    wait_equal(lambda: len(hosts.client.subflows()), 2)
    ((token, flows),) = read_subflows(hosts.client.name).items()
    hosts.server.lose("10.1.0.1", "eth1")
    end_subflow(hosts.client, token, next(flow for flow in flows if not flow.initial))
    wait_equal(lambda: program.integers("results"), [0])
    disconnect(end)
    end.connect(("10.2.0.2", 5000))
    exchange(end, hosts.keep(listener.accept()[0]))
    wait_equal(lambda: len(hosts.client.subflows()), 2)
    program.write("results", 0, struct.pack("=i", UNTRIED))
    requests = hosts.client.counter("BPFReq")
    wait_for(lambda: program.integers("results") != [UNTRIED], "a repeated FIN")
    assert program.integers("results") == [-errno.ENOTCONN]
    assert hosts.client.counter("BPFReq") == requests
    program.detach()
