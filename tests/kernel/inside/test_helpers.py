# SPDX-License-Identifier: Apache-2.0
"""bpf_open_subflow() and bpf_close_subflow(): what they do, refuse, and count."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from tests.lab.recorder import Op, Recorder, address
from tests.lab.sock_ops import SockOpsProgram
from tests.lab.two_hosts import TwoHosts, exchange
from tests.lab.waiting import wait_equal, wait_for

BACKUP, ANNOUNCE, PRIO, WITHDRAW, CLOSE = 1, 2, 4, 8, 16
ESTABLISHED = Op.FULLY_ESTABLISHED


def accept_joins(hosts: TwoHosts) -> None:
    hosts.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")


def ips(hosts: TwoHosts) -> list[tuple[str, str]]:
    """(local, remote) addresses of the client's subflows, without ports."""

    return sorted((flow.local, flow.remote) for flow in hosts.client.subflows())


@pytest.mark.parametrize("ip", ["10.1.0.2", "fd00:1::2"])
def test_null_addresses_repeat_the_initial_subflow(hosts: TwoHosts, client: Recorder, ip: str) -> None:
    """(NULL, 0, NULL, 0), as in the paper's ndiffports: the same addresses, another port."""
    accept_joins(hosts)
    client.act(0, ESTABLISHED, "open", times=2)
    hosts.connect(hosts.listen("::"), ip)
    wait_equal(lambda: len(hosts.client.subflows()), 3)
    assert len(set(ips(hosts))) == 1
    assert client.events(Op.SUBFLOW_ESTABLISHED)[0].args == (0, 0, 0, 0)


@pytest.mark.parametrize("length", [16, 40])
def test_ipv4_addresses(hosts: TwoHosts, client: Recorder, length: int) -> None:
    """A sockaddr_in or a struct bpf_mptcp_addr names the path; a free source port is chosen."""
    accept_joins(hosts)
    client.act(
        0, ESTABLISHED, "open", address("10.2.0.1", length=length), address("10.2.0.2", 5000, length=length)
    )
    hosts.connect(hosts.listen("0.0.0.0"))
    wait_for(lambda: ("10.2.0.1", "10.2.0.2") in ips(hosts), "subflow")


@pytest.mark.parametrize("length", [28, 40])
def test_ipv6_addresses(hosts: TwoHosts, client: Recorder, length: int) -> None:
    """A sockaddr_in6 or a struct bpf_mptcp_addr names the path."""
    accept_joins(hosts)
    client.act(
        0, ESTABLISHED, "open", address("fd00:2::1", length=length), address("fd00:2::2", 5000, length=length)
    )
    hosts.connect(hosts.listen("::"), "fd00:1::2")
    wait_for(lambda: ("fd00:2::1", "fd00:2::2") in ips(hosts), "subflow")


def test_dual_stack(hosts: TwoHosts, client: Recorder) -> None:
    """An IPv6 session opens IPv4 subflows too; without a source, the route chooses it."""
    accept_joins(hosts)
    client.act(0, ESTABLISHED, "open", b"", address("10.2.0.2", 5000))
    client.act(1, ESTABLISHED, "open", address("::ffff:10.1.0.1", length=28), address("10.1.0.2", length=16))
    hosts.connect(hosts.listen("::"), "fd00:1::2")
    wait_equal(lambda: len(hosts.client.subflows()), 3)
    assert ("10.2.0.1", "10.2.0.2") in ips(hosts)
    assert ("10.1.0.1", "10.1.0.2") in ips(hosts)


def test_mapped_session(hosts: TwoHosts, client: Recorder) -> None:
    """An IPv6 socket connected to a v4-mapped address opens IPv4 subflows, also "as the initial one"."""
    accept_joins(hosts)
    client.act(0, ESTABLISHED, "open")
    client.act(1, ESTABLISHED, "open", address("10.2.0.1", length=16), address("10.2.0.2", length=16))
    hosts.connect(hosts.listen("::"), "::ffff:10.1.0.2", family=socket.AF_INET6)
    wait_equal(lambda: len(hosts.client.subflows()), 3)
    assert ips(hosts) == [("10.1.0.1", "10.1.0.2")] * 2 + [("10.2.0.1", "10.2.0.2")]
    assert sorted(e.args[1] for e in client.events(Op.SUBFLOW_ESTABLISHED)) == [0, 1]


def test_source_port_id_interface_and_backup(hosts: TwoHosts, client: Recorder) -> None:
    """The extended address carries source port, address id, interface and backup flag."""
    accept_joins(hosts)
    eth2 = int(hosts.client.ip("-o", "link", "show", "eth2").split(":")[0])
    client.act(
        0,
        ESTABLISHED,
        "open",
        address("10.2.0.1", 7777, id=9, ifindex=eth2, flags=BACKUP),
        address("10.2.0.2"),
    )
    hosts.connect(hosts.listen("0.0.0.0"))
    event = wait_for(lambda: client.events(Op.SUBFLOW_ESTABLISHED), "subflow")[0]
    assert event.args == (0, 9, 1, 1)
    assert event.ports == (7777, 5000)
    assert "%eth2:7777" in hosts.client.run("ss", "-tn")
    assert hosts.server.counter("MPJoinSynBackupRx") == 1


BAD = {
    "no length fits 15 bytes": (address("10.2.0.1", length=15), b"", errno.EINVAL),
    "sockaddr_in6 cut to a sockaddr_in": (address("fd00:2::1", length=16), b"", errno.EINVAL),
    "sockaddr_in as long as a sockaddr_in6": (address("10.2.0.1", length=28), b"", errno.EINVAL),
    "39 bytes": (address("10.2.0.1", length=39), b"", errno.EINVAL),
    "unknown family": (bytes([9]) + bytes(15), b"", errno.EAFNOSUPPORT),
    "no family in a sockaddr_in": (bytes(16), b"", errno.EAFNOSUPPORT),
    "IPv6 on an IPv4 session": (b"", address("fd00:2::2", length=28), errno.EAFNOSUPPORT),
    "two families": (address("10.2.0.1"), address("fd00:2::2"), errno.EAFNOSUPPORT),
    "not a local address": (address("10.2.0.99"), address("10.2.0.2"), errno.EADDRNOTAVAIL),
    "no such interface": (address("10.2.0.1", ifindex=999), address("10.2.0.2"), errno.ENODEV),
    "id beyond 255": (address("10.2.0.1", id=256), address("10.2.0.2"), errno.EINVAL),
    "an id for the initial address": (address("10.1.0.1", id=3), b"", errno.EINVAL),
    "unknown flag": (address("10.2.0.1", flags=16), address("10.2.0.2"), errno.EINVAL),
    "flag of close": (address("10.2.0.1", flags=WITHDRAW), b"", errno.EINVAL),
    "flags in dst": (b"", address("10.2.0.2", flags=BACKUP), errno.EINVAL),
    "interface in dst": (b"", address("10.2.0.2", ifindex=1), errno.EINVAL),
    "announce with dst": (address("10.2.0.1", flags=ANNOUNCE), address("10.2.0.2"), errno.EINVAL),
    "announce nothing": (address(flags=ANNOUNCE), b"", errno.EAFNOSUPPORT),
    "announce any": (address("0.0.0.0", flags=ANNOUNCE), b"", errno.EINVAL),
    "two wishes": (address("10.2.0.1", flags=ANNOUNCE | PRIO), b"", errno.EINVAL),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_arguments_of_open(hosts: TwoHosts, client: Recorder, what: str) -> None:
    """Each mistake has its errno, and opens nothing."""
    src, dst, error = BAD[what]
    client.act(0, ESTABLISHED, "open", src, dst)
    hosts.connect(hosts.listen())
    assert client.events(ESTABLISHED)[0].results[0] == -error
    assert hosts.client.counter("BPFReq") == 0


@pytest.mark.parametrize(
    ("src", "error"),
    [
        (address("10.2.0.1", flags=ANNOUNCE), errno.EINVAL),
        (address("10.2.0.1", flags=PRIO), errno.EINVAL),
        (address("10.2.0.1", flags=BACKUP), errno.EINVAL),
        (address(flags=WITHDRAW), errno.EINVAL),
    ],
)
def test_bad_arguments_of_close(hosts: TwoHosts, client: Recorder, src: bytes, error: int) -> None:
    """The flags of bpf_open_subflow() are refused by bpf_close_subflow()."""
    client.act(0, ESTABLISHED, "close", src)
    hosts.connect(hosts.listen())
    assert client.events(ESTABLISHED)[0].results[0] == -error


def test_too_early_and_too_late(hosts: TwoHosts, client: Recorder) -> None:
    """Before FULLY_ESTABLISHED, also just after the claim, and from CLOSE_SESSION on: ENOTCONN or EPERM."""
    client.act(0, Op.NEW_SESSION, "open")
    client.act(1, Op.CLOSE_SESSION, "open")
    hosts.connect(hosts.listen())[0].close()
    wait_for(lambda: client.count(Op.CLOSE_SESSION), "close")
    assert client.events(Op.NEW_SESSION)[0].results[0] == -errno.EPERM
    assert client.events(Op.CLOSE_SESSION)[0].results[1] == -errno.ENOTCONN


def test_request_that_fails_later_is_reported(hosts: TwoHosts, client: Recorder) -> None:
    """A source port in use comes back as SUBFLOW_CLOSED with errno, request flag and destination."""
    accept_joins(hosts)
    hosts.keep(hosts.client.listen("10.2.0.1", 7777, protocol=socket.IPPROTO_TCP))
    client.act(0, ESTABLISHED, "open", address("10.2.0.1", 7777), address("10.2.0.2"))
    hosts.connect(hosts.listen("0.0.0.0"))
    (closed,) = wait_for(lambda: client.events(Op.SUBFLOW_CLOSED), "report")
    assert closed.args == (errno.EADDRINUSE, 1, 0, 2)
    assert closed.raddr == (0, socket.AF_INET, 5000, socket.inet_aton("10.2.0.2"))
    assert hosts.client.counter("BPFReqFailed") == 1


@pytest.mark.parametrize(
    ("kind", "src", "done"),
    [
        ("open", address("10.2.0.1", id=5, flags=ANNOUNCE), (0, 5, 0, ANNOUNCE)),
        ("open", address("10.2.0.1", flags=ANNOUNCE), (0, 1, 0, ANNOUNCE)),
        ("open", address("10.1.0.1", flags=PRIO | BACKUP), (0, 0, 0, PRIO | BACKUP)),
        ("open", address("10.1.0.1", flags=PRIO), (0, 0, 0, PRIO)),
        ("open", address("10.9.0.1", flags=PRIO), (errno.ESRCH, 0, 0, PRIO)),
        ("close", address("10.2.0.1"), (errno.ESRCH, 0, 0, CLOSE)),
        ("close", address("10.2.0.1", flags=WITHDRAW), (errno.ENOENT, 0, 0, WITHDRAW)),
        ("close", address(id=9, flags=WITHDRAW), (errno.ENOENT, 9, 0, WITHDRAW)),
    ],
)
def test_every_request_is_reported(
    hosts: TwoHosts, client: Recorder, kind: str, src: bytes, done: tuple[int, ...]
) -> None:
    """REQUEST_DONE says what became of a request that was not to open a subflow, once."""
    client.act(0, ESTABLISHED, kind, src)
    ends = hosts.connect(hosts.listen())
    wait_for(lambda: client.count(Op.REQUEST_DONE), "report")
    exchange(*ends)
    assert [e.args for e in client.events(Op.REQUEST_DONE)] == [done]
    assert hosts.client.counter("BPFReqFailed") == bool(done[0])


def test_a_subflow_that_opens_has_no_other_report(hosts: TwoHosts, client: Recorder) -> None:
    """SUBFLOW_ESTABLISHED tells it."""
    accept_joins(hosts)
    client.act(0, ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    client.act(1, Op.SUBFLOW_ESTABLISHED, "close")
    hosts.connect(hosts.listen("0.0.0.0"))
    wait_for(lambda: client.count(Op.REQUEST_DONE), "the report of the close")
    assert client.count(Op.REQUEST_DONE) == 1
    assert client.events(Op.REQUEST_DONE)[0].args[0] == 0


def test_a_request_in_each_report_is_bounded(hosts: TwoHosts, client: Recorder) -> None:
    """A program that asks again in REQUEST_DONE is held by the rate of its session."""
    hosts.client.sysctl("net.mptcp.bpf_max_requests", 10)
    hosts.client.sysctl("net.mptcp.bpf_request_rate", 1)
    client.act(0, ESTABLISHED, "close", address("10.2.0.1"))
    client.act(1, Op.REQUEST_DONE, "close", address("10.2.0.1"), remaining=1000)
    hosts.connect(hosts.listen())
    wait_for(
        lambda: [e for e in client.events(Op.REQUEST_DONE) if e.results[1] == -errno.EAGAIN], "the rate's no"
    )
    assert 10 <= client.count(Op.REQUEST_DONE) <= 12


def test_refused_connection_is_reported(hosts: TwoHosts, client: Recorder) -> None:
    """A subflow to a port without listener ends as SUBFLOW_CLOSED(ECONNREFUSED)."""
    client.act(0, ESTABLISHED, "open", b"", address("10.1.0.2", 9))
    hosts.connect(hosts.listen())
    (closed,) = wait_for(lambda: client.events(Op.SUBFLOW_CLOSED), "report")
    assert closed.args == (errno.ECONNREFUSED, 0, 0, 0)


def test_close_by_address(hosts: TwoHosts, client: Recorder) -> None:
    """bpf_close_subflow(src) closes all subflows from it, and the peer's ends."""
    accept_joins(hosts)
    client.act(0, ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"), times=2)
    client.act(1, Op.ADD_RADDR, "close", address("10.2.0.1"))
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    wait_equal(lambda: len(hosts.client.subflows()), 3)
    hosts.server.mptcp("endpoint", "add", "10.9.0.2", "signal")  # makes the callback
    wait_equal(lambda: client.count(Op.SUBFLOW_CLOSED), 2)
    assert ips(hosts) == [("10.1.0.1", "10.1.0.2")]
    assert [e.args[0] for e in client.events(Op.SUBFLOW_CLOSED)] == [0, 0]
    wait_equal(lambda: len(hosts.server.subflows()), 1)
    exchange(*ends)


def test_close_own_subflow(hosts: TwoHosts, client: Recorder) -> None:
    """bpf_close_subflow(NULL, NULL) closes the subflow of the callback, and no other."""
    accept_joins(hosts)
    client.act(0, ESTABLISHED, "open")
    client.act(1, Op.SUBFLOW_ESTABLISHED, "close")
    ends = hosts.connect(hosts.listen())
    wait_equal(lambda: client.count(Op.SUBFLOW_CLOSED), 1)
    assert len(hosts.client.subflows()) == 1
    exchange(*ends)


def test_close_before_the_answer(hosts: TwoHosts, client: Recorder) -> None:
    """A subflow that the program closes while it connects ends without an error, too."""
    hosts.client.lose("10.2.0.9", "eth2")
    client.act(0, ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.9"))
    client.act(1, Op.ADD_RADDR, "close", address("10.2.0.1"))
    hosts.connect(hosts.listen())
    wait_equal(lambda: hosts.client.counter("MPJoinSynTx"), 1)
    hosts.server.mptcp("endpoint", "add", "10.9.0.2", "signal")
    wait_equal(lambda: client.count(Op.SUBFLOW_CLOSED), 1)
    assert client.events(Op.SUBFLOW_CLOSED)[0].args[0] == 0


def test_local_ids_are_freed(hosts: TwoHosts, client: Recorder) -> None:
    """The address entry goes with its last subflow: id 1 is free again for another address."""
    accept_joins(hosts)
    hosts.client.ip("addr", "add", "10.2.0.7/24", "dev", "eth2")
    client.act(0, ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    client.act(1, Op.SUBFLOW_ESTABLISHED, "close")
    client.act(2, Op.SUBFLOW_CLOSED, "open", address("10.2.0.7"), address("10.2.0.2"))
    hosts.connect(hosts.listen("0.0.0.0"))
    wait_equal(lambda: client.count(Op.SUBFLOW_ESTABLISHED), 2)
    events = client.events(Op.SUBFLOW_ESTABLISHED)
    # the entry is still there while SUBFLOW_CLOSED runs; the request is served after it went
    assert [e.args[1] for e in events] == [1, 1]


def test_priority(hosts: TwoHosts, client: Recorder) -> None:
    """BPF_MPTCP_ADDR_PRIO changes the backup flag of a living subflow, and tells the peer."""
    accept_joins(hosts)
    client.act(0, ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    client.act(1, Op.ADD_RADDR, "open", address("10.2.0.1", flags=PRIO | BACKUP))
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    wait_for(lambda: client.count(Op.SUBFLOW_ESTABLISHED), "subflow")
    exchange(*ends, b"y" * 20000)
    wait_equal(lambda: client.count(ESTABLISHED), 2)
    hosts.server.mptcp("endpoint", "add", "10.9.0.2", "signal")
    wait_equal(lambda: hosts.server.counter("MPPrioRx"), 1)


def test_announce_and_withdraw(hosts: TwoHosts, client: Recorder) -> None:
    """An announced address reaches the peer's kernel, and is taken back by address."""
    hosts.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    hosts.listen("10.2.0.2", 5001)
    hosts.keep(hosts.client.listen("10.2.0.1", 5000))
    client.act(0, ESTABLISHED, "open", address("10.2.0.1", id=5, flags=ANNOUNCE))
    client.act(1, Op.ADD_RADDR, "close", address("10.2.0.1", flags=WITHDRAW))
    hosts.connect(hosts.listen())
    wait_equal(lambda: hosts.server.counter("AddAddr"), 1)
    hosts.server.mptcp("endpoint", "add", "10.9.0.2", "signal")
    wait_equal(lambda: hosts.server.counter("RmAddr"), 1)


@pytest.mark.parametrize("ip", ["10.1.0.2", "fd00:1::2"])
def test_withdraw_the_initial_address(hosts: TwoHosts, client: Recorder, ip: str) -> None:
    """RM_ADDR of id 0: named by its address, with its subflows; the session goes on over another."""
    local = "10.1.0.1" if ip == "10.1.0.2" else "fd00:1::1"
    accept_joins(hosts)
    client.act(0, ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    client.act(1, Op.ADD_RADDR, "close", address(local, flags=WITHDRAW))
    ends = hosts.connect(hosts.listen("::"), ip)
    wait_equal(lambda: client.count(Op.SUBFLOW_ESTABLISHED), 1)
    exchange(*ends, b"y" * 20000)
    hosts.server.mptcp("endpoint", "add", "10.9.0.2", "signal")  # makes the callback
    wait_equal(lambda: hosts.server.counter("RmAddr"), 1)
    wait_equal(lambda: ips(hosts), [("10.2.0.1", "10.2.0.2")])
    (done,) = wait_for(lambda: client.events(Op.REQUEST_DONE), "report")
    assert done.args == (0, 0, 0, WITHDRAW)
    exchange(*ends)


def test_the_peers_priority(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """MP_PRIO of the peer is a callback at this end, once for each change."""
    accept_joins(hosts)
    client.act(0, Op.SUBFLOW_ESTABLISHED, "open", address("10.2.0.1", flags=PRIO | BACKUP))
    client.act(1, ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    client.act(2, Op.REQUEST_DONE, "open", address("10.2.0.1", flags=PRIO))
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    wait_equal(lambda: server.count(Op.PRIORITY), 2)
    exchange(*ends)
    assert [e.args for e in server.events(Op.PRIORITY)] == [(1, 1, 1, 1), (0, 1, 1, 0)]
    assert not client.count(Op.PRIORITY)


def test_subflow_limit(hosts: TwoHosts, client: Recorder) -> None:
    """net.mptcp.bpf_max_subflows bounds subflows and those asked for: EDQUOT."""
    accept_joins(hosts)
    hosts.client.sysctl("net.mptcp.bpf_max_subflows", 3)
    client.act(0, ESTABLISHED, "open", times=4)
    client.act(1, Op.SUBFLOW_ESTABLISHED, "open", remaining=9)
    hosts.connect(hosts.listen())
    wait_equal(lambda: len(hosts.client.subflows()), 4)
    assert client.events(ESTABLISHED)[0].results[0] == -errno.EDQUOT
    wait_equal(lambda: client.count(Op.SUBFLOW_ESTABLISHED), 3)
    assert {e.results[1] for e in client.events(Op.SUBFLOW_ESTABLISHED)} == {-errno.EDQUOT}
    assert hosts.client.counter("BPFReqRefused") == 4


def test_subflow_limit_of_joins(hosts: TwoHosts, server: Recorder) -> None:
    """The limit counts what the peer opens, too: further joins are reset."""
    hosts.server.sysctl("net.mptcp.bpf_max_subflows", 1)
    hosts.client.mptcp("limits", "set", "subflows", "8")
    hosts.client.mptcp("endpoint", "add", "10.2.0.1", "dev", "eth2", "subflow")
    hosts.client.ip("addr", "add", "10.1.0.9/24", "dev", "eth1")
    hosts.client.mptcp("endpoint", "add", "10.1.0.9", "dev", "eth1", "subflow")
    hosts.client.ip("route", "add", "10.1.0.2/32", "dev", "eth2", "src", "10.2.0.1", "metric", "500")
    hosts.server.ip("addr", "add", "10.1.0.22/24", "dev", "eth1")
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    exchange(*ends)
    wait_equal(lambda: server.count(Op.SUBFLOW_ESTABLISHED), 1)
    assert len(hosts.server.subflows()) <= 2


def test_request_limit(hosts: TwoHosts, server: Recorder) -> None:
    """net.mptcp.bpf_max_requests bounds what waits (here for accept()): ENOBUFS."""
    hosts.server.sysctl("net.mptcp.bpf_max_requests", 5)
    hosts.server.sysctl("net.mptcp.bpf_request_rate", 0)
    server.act(0, ESTABLISHED, "open", times=6)
    hosts.listen()
    sock = hosts.keep(hosts.client.socket())
    sock.connect(("10.1.0.2", 5000))
    sock.sendall(b"x")
    (event,) = wait_for(lambda: server.events(ESTABLISHED), "session")
    assert event.results[0] == -errno.ENOBUFS
    assert hosts.server.counter("BPFReq") == 5


def test_rate_limit(hosts: TwoHosts, client: Recorder) -> None:
    """Beyond the burst of bpf_max_requests, bpf_request_rate per second pass: EAGAIN."""
    hosts.client.sysctl("net.mptcp.bpf_max_requests", 10)
    hosts.client.sysctl("net.mptcp.bpf_request_rate", 1)
    client.act(0, ESTABLISHED, "close", address("10.2.0.1"), times=8)  # nothing there: cheap
    client.act(1, Op.ADD_RADDR, "close", address("10.2.0.1"), times=3)
    hosts.connect(hosts.listen())
    wait_equal(lambda: hosts.client.counter("BPFReqFailed"), 8)
    hosts.server.mptcp("endpoint", "add", "10.9.0.2", "signal")
    (event,) = wait_for(lambda: client.events(Op.ADD_RADDR), "callback")
    assert event.results[1] == -errno.EAGAIN


def test_limit_of_the_namespace(hosts: TwoHosts, client: Recorder) -> None:
    """net.mptcp.bpf_open_rate bounds what all sessions open together: EAGAIN; other requests pass."""
    accept_joins(hosts)
    hosts.client.sysctl("net.mptcp.bpf_open_rate", 3)
    listener = hosts.listen()
    client.act(0, ESTABLISHED, "open", times=2, remaining=9)
    client.act(1, ESTABLISHED, "close", address("10.2.0.1"), remaining=9)
    for _ in range(2):
        hosts.connect(listener)
    first, second = (e for e in client.events(ESTABLISHED) if e.args[0])
    assert (first.results[0], second.results[0]) == (0, -errno.EAGAIN)
    assert (first.results[1], second.results[1]) == (0, 0)


def test_limit_of_another_namespace(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """Each namespace has its own bound; 0 is none."""
    accept_joins(hosts)
    hosts.client.sysctl("net.mptcp.bpf_open_rate", 0)
    hosts.server.sysctl("net.mptcp.bpf_open_rate", 1)
    client.act(0, ESTABLISHED, "open", times=8)
    hosts.connect(hosts.listen())
    assert client.events(ESTABLISHED)[0].results[0] == 0
    wait_equal(lambda: hosts.client.counter("BPFReq"), 8)


def test_requests_are_charged_to_the_session(hosts: TwoHosts, client: Recorder) -> None:
    """What waits takes of the session's option memory: ENOMEM beyond net.core.optmem_max."""
    accept_joins(hosts)
    hosts.client.sysctl("net.core.optmem_max", 150)  # more than one request, less than two
    client.act(0, ESTABLISHED, "open")
    client.act(1, ESTABLISHED, "open")
    hosts.connect(hosts.listen())
    (event,) = client.events(ESTABLISHED)[:1]
    assert event.results[:2] == (0, -errno.ENOMEM)
    wait_equal(lambda: len(hosts.client.subflows()), 2)
    client.act(2, Op.ADDRESS_CHANGED, "close")  # what was served is freed
    hosts.client.ip("addr", "add", "10.2.0.5/24", "dev", "eth2")
    wait_equal(lambda: len(hosts.client.subflows()), 1)


def test_the_number_of_the_abi(hosts: TwoHosts) -> None:
    """It is one for all namespaces, and nobody can write it."""
    assert hosts.client.run("sysctl", "-n", "net.mptcp.bpf_abi").strip() == "4"
    with pytest.raises(PermissionError):
        Path("/proc/sys/net/mptcp/bpf_abi").write_text("5")


def test_requests_wait_for_accept(hosts: TwoHosts, server: Recorder) -> None:
    """What the server's program asks for before accept() is done after it."""
    hosts.client.mptcp("limits", "set", "subflows", "8")
    hosts.keep(hosts.client.listen("10.2.0.1", 6000))
    server.act(0, ESTABLISHED, "open", address("10.2.0.2"), address("10.2.0.1", 6000))
    listener = hosts.listen()
    sock = hosts.keep(hosts.client.socket())
    sock.connect(("10.1.0.2", 5000))
    sock.sendall(b"x")
    (event,) = wait_for(lambda: server.events(ESTABLISHED), "session")
    assert event.results[0] == 0
    assert hosts.server.counter("MPJoinSynTx") == 0
    hosts.keep(listener.accept()[0])
    wait_equal(lambda: hosts.server.counter("MPJoinSynTx"), 1)


def test_helper_on_plain_tcp(hosts: TwoHosts) -> None:
    """On a TCP socket that does not belong to MPTCP they return EOPNOTSUPP."""
    program = SockOpsProgram("plain")
    program.attach(hosts.client.cgroup)
    hosts.connect(hosts.listen(protocol=socket.IPPROTO_TCP), protocol=socket.IPPROTO_TCP)
    *results, local_token, remote_token = program.integers("results")
    assert results == [-errno.EOPNOTSUPP] * 2
    assert (local_token, remote_token) == (0, 0)
