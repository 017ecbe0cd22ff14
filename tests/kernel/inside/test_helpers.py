# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import errno
import socket

import pytest

from tests.kernel.lab import Lab, exchange, run, wait_for
from tests.kernel.programs import Op, Program, Recorder, address

BACKUP, ANNOUNCE, PRIO, WITHDRAW = 1, 2, 4, 8
ESTABLISHED = Op.FULLY_ESTABLISHED


def accept_joins(lab: Lab) -> None:
    lab.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")


def ips(lab: Lab) -> list[tuple[str, str]]:
    """(local, remote) addresses of the client's subflows, without ports."""

    def ip(text: str) -> str:
        return text.rsplit(":", 1)[0].split("%")[0].strip("[]").removeprefix("::ffff:")

    return sorted((ip(local), ip(remote)) for local, remote in lab.client.subflows())


@pytest.mark.parametrize("ip", ["10.1.0.2", "fd00:1::2"])
def test_null_addresses_repeat_the_initial_subflow(lab: Lab, client: Recorder, ip: str) -> None:
    """(NULL, 0, NULL, 0), as in the paper's ndiffports: the same addresses, another port."""
    accept_joins(lab)
    client.act(0, ESTABLISHED, "open", times=2)
    lab.connect(lab.listen("::"), ip)
    wait_for("subflows", lambda: len(lab.client.subflows()) == 3)
    assert len(set(ips(lab))) == 1
    assert client.events(Op.SUBFLOW_ESTABLISHED)[0].args == (0, 0, 0, 0)


@pytest.mark.parametrize("length", [16, 40])
def test_ipv4_addresses(lab: Lab, client: Recorder, length: int) -> None:
    """A sockaddr_in or a struct bpf_mptcp_addr names the path; a free source port is chosen."""
    accept_joins(lab)
    client.act(
        0, ESTABLISHED, "open", address("10.2.0.1", length=length), address("10.2.0.2", 5000, length=length)
    )
    lab.connect(lab.listen("0.0.0.0"))
    wait_for("subflow", lambda: ("10.2.0.1", "10.2.0.2") in ips(lab))


@pytest.mark.parametrize("length", [28, 40])
def test_ipv6_addresses(lab: Lab, client: Recorder, length: int) -> None:
    """A sockaddr_in6 or a struct bpf_mptcp_addr names the path."""
    accept_joins(lab)
    client.act(
        0, ESTABLISHED, "open", address("fd00:2::1", length=length), address("fd00:2::2", 5000, length=length)
    )
    lab.connect(lab.listen("::"), "fd00:1::2")
    wait_for("subflow", lambda: ("fd00:2::1", "fd00:2::2") in ips(lab))


def test_dual_stack(lab: Lab, client: Recorder) -> None:
    """An IPv6 session opens IPv4 subflows too; without a source, the route chooses it."""
    accept_joins(lab)
    client.act(0, ESTABLISHED, "open", b"", address("10.2.0.2", 5000))
    client.act(1, ESTABLISHED, "open", address("::ffff:10.1.0.1", length=28), address("10.1.0.2", length=16))
    lab.connect(lab.listen("::"), "fd00:1::2")
    wait_for("subflows", lambda: len(lab.client.subflows()) == 3)
    assert ("10.2.0.1", "10.2.0.2") in ips(lab)
    assert ("10.1.0.1", "10.1.0.2") in ips(lab)


def test_mapped_session(lab: Lab, client: Recorder) -> None:
    """An IPv6 socket connected to a v4-mapped address opens IPv4 subflows, also "as the initial one"."""
    accept_joins(lab)
    client.act(0, ESTABLISHED, "open")
    client.act(1, ESTABLISHED, "open", address("10.2.0.1", length=16), address("10.2.0.2", length=16))
    lab.connect(lab.listen("::"), "::ffff:10.1.0.2", family=socket.AF_INET6)
    wait_for("subflows", lambda: len(lab.client.subflows()) == 3)
    assert ips(lab) == [("10.1.0.1", "10.1.0.2")] * 2 + [("10.2.0.1", "10.2.0.2")]
    assert sorted(e.args[1] for e in client.events(Op.SUBFLOW_ESTABLISHED)) == [0, 1]


def test_source_port_id_interface_and_backup(lab: Lab, client: Recorder) -> None:
    """The extended address carries source port, address id, interface and backup flag."""
    accept_joins(lab)
    eth2 = int(lab.client.ip("-o", "link", "show", "eth2").split(":")[0])
    client.act(
        0,
        ESTABLISHED,
        "open",
        address("10.2.0.1", 7777, id=9, ifindex=eth2, flags=BACKUP),
        address("10.2.0.2"),
    )
    lab.connect(lab.listen("0.0.0.0"))
    event = wait_for("subflow", lambda: client.events(Op.SUBFLOW_ESTABLISHED))[0]
    assert event.args == (0, 9, 1, 1)
    assert event.ports == (7777, 5000)
    assert "%eth2:7777" in run("ip", "netns", "exec", "client", "ss", "-tn")
    assert lab.server.counter("MPJoinSynBackupRx") == 1


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
def test_bad_arguments_of_open(lab: Lab, client: Recorder, what: str) -> None:
    """Each mistake has its errno, and opens nothing."""
    src, dst, error = BAD[what]
    client.act(0, ESTABLISHED, "open", src, dst)
    lab.connect(lab.listen())
    assert client.events(ESTABLISHED)[0].results[0] == -error
    assert lab.client.counter("BPFReq") == 0


@pytest.mark.parametrize(
    ("src", "error"),
    [
        (address("10.2.0.1", flags=ANNOUNCE), errno.EINVAL),
        (address("10.2.0.1", flags=PRIO), errno.EINVAL),
        (address("10.2.0.1", flags=BACKUP), errno.EINVAL),
        (address(flags=WITHDRAW), errno.EINVAL),
    ],
)
def test_bad_arguments_of_close(lab: Lab, client: Recorder, src: bytes, error: int) -> None:
    """The flags of bpf_open_subflow() are refused by bpf_close_subflow()."""
    client.act(0, ESTABLISHED, "close", src)
    lab.connect(lab.listen())
    assert client.events(ESTABLISHED)[0].results[0] == -error


def test_too_early_and_too_late(lab: Lab, client: Recorder) -> None:
    """Before FULLY_ESTABLISHED, also just after the claim, and from CLOSE_SESSION on: ENOTCONN or EPERM."""
    client.act(0, Op.NEW_SESSION, "open")
    client.act(1, Op.CLOSE_SESSION, "open")
    lab.connect(lab.listen())[0].close()
    wait_for("close", lambda: client.count(Op.CLOSE_SESSION))
    assert client.events(Op.NEW_SESSION)[0].results[0] == -errno.EPERM
    assert client.events(Op.CLOSE_SESSION)[0].results[1] == -errno.ENOTCONN


def test_request_that_fails_later_is_reported(lab: Lab, client: Recorder) -> None:
    """A source port in use comes back as SUBFLOW_CLOSED with errno, request flag and destination."""
    accept_joins(lab)
    lab.keep(lab.client.listen("10.2.0.1", 7777, protocol=socket.IPPROTO_TCP))
    client.act(0, ESTABLISHED, "open", address("10.2.0.1", 7777), address("10.2.0.2"))
    lab.connect(lab.listen("0.0.0.0"))
    (closed,) = wait_for("report", lambda: client.events(Op.SUBFLOW_CLOSED))
    assert closed.args == (errno.EADDRINUSE, 1, 0, 2)
    assert closed.raddr == (0, socket.AF_INET, 5000, socket.inet_aton("10.2.0.2"))
    assert lab.client.counter("BPFReqFailed") == 1


def test_refused_connection_is_reported(lab: Lab, client: Recorder) -> None:
    """A subflow to a port without listener ends as SUBFLOW_CLOSED(ECONNREFUSED)."""
    client.act(0, ESTABLISHED, "open", b"", address("10.1.0.2", 9))
    lab.connect(lab.listen())
    (closed,) = wait_for("report", lambda: client.events(Op.SUBFLOW_CLOSED))
    assert closed.args == (errno.ECONNREFUSED, 0, 0, 0)


def test_close_by_address(lab: Lab, client: Recorder) -> None:
    """bpf_close_subflow(src) closes all subflows from it, and the peer's ends."""
    accept_joins(lab)
    client.act(0, ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"), times=2)
    client.act(1, Op.ADD_RADDR, "close", address("10.2.0.1"))
    ends = lab.connect(lab.listen("0.0.0.0"))
    wait_for("subflows", lambda: len(lab.client.subflows()) == 3)
    lab.server.mptcp("endpoint", "add", "10.9.0.2", "signal")  # makes the callback
    wait_for("closed", lambda: client.count(Op.SUBFLOW_CLOSED) == 2)
    assert ips(lab) == [("10.1.0.1", "10.1.0.2")]
    assert [e.args[0] for e in client.events(Op.SUBFLOW_CLOSED)] == [0, 0]
    wait_for("closed at the server", lambda: len(lab.server.subflows()) == 1)
    exchange(*ends)


def test_close_own_subflow(lab: Lab, client: Recorder) -> None:
    """bpf_close_subflow(NULL, NULL) closes the subflow of the callback, and no other."""
    accept_joins(lab)
    client.act(0, ESTABLISHED, "open")
    client.act(1, Op.SUBFLOW_ESTABLISHED, "close")
    ends = lab.connect(lab.listen())
    wait_for("closed", lambda: client.count(Op.SUBFLOW_CLOSED) == 1)
    assert len(lab.client.subflows()) == 1
    exchange(*ends)


def test_close_before_the_answer(lab: Lab, client: Recorder) -> None:
    """A subflow that the program closes while it connects ends without an error, too."""
    lab.client.ip("neigh", "add", "10.2.0.9", "lladdr", "02:00:00:00:00:09", "dev", "eth2")  # nobody
    client.act(0, ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.9"))
    client.act(1, Op.ADD_RADDR, "close", address("10.2.0.1"))
    lab.connect(lab.listen())
    wait_for("SYN", lambda: lab.client.counter("MPJoinSynTx") == 1)
    lab.server.mptcp("endpoint", "add", "10.9.0.2", "signal")
    wait_for("closed", lambda: client.count(Op.SUBFLOW_CLOSED) == 1)
    assert client.events(Op.SUBFLOW_CLOSED)[0].args[0] == 0


def test_local_ids_are_freed(lab: Lab, client: Recorder) -> None:
    """The address entry goes with its last subflow: id 1 is free again for another address."""
    accept_joins(lab)
    lab.client.ip("addr", "add", "10.2.0.7/24", "dev", "eth2")
    client.act(0, ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    client.act(1, Op.SUBFLOW_ESTABLISHED, "close")
    client.act(2, Op.SUBFLOW_CLOSED, "open", address("10.2.0.7"), address("10.2.0.2"))
    lab.connect(lab.listen("0.0.0.0"))
    wait_for("both", lambda: client.count(Op.SUBFLOW_ESTABLISHED) == 2)
    events = client.events(Op.SUBFLOW_ESTABLISHED)
    # the entry is still there while SUBFLOW_CLOSED runs; the request is served after it went
    assert [e.args[1] for e in events] == [1, 1]


def test_priority(lab: Lab, client: Recorder) -> None:
    """BPF_MPTCP_ADDR_PRIO changes the backup flag of a living subflow, and tells the peer."""
    accept_joins(lab)
    client.act(0, ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    client.act(1, Op.ADD_RADDR, "open", address("10.2.0.1", flags=PRIO | BACKUP))
    ends = lab.connect(lab.listen("0.0.0.0"))
    wait_for("subflow", lambda: client.count(Op.SUBFLOW_ESTABLISHED))
    exchange(*ends, b"y" * 20000)
    wait_for("usable", lambda: client.count(ESTABLISHED) == 2)
    lab.server.mptcp("endpoint", "add", "10.9.0.2", "signal")
    wait_for("MP_PRIO", lambda: lab.server.counter("MPPrioRx") == 1)


def test_announce_and_withdraw(lab: Lab, client: Recorder) -> None:
    """An announced address reaches the peer's kernel, and is taken back by address."""
    lab.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    lab.listen("10.2.0.2", 5001)
    lab.keep(lab.client.listen("10.2.0.1", 5000))
    client.act(0, ESTABLISHED, "open", address("10.2.0.1", id=5, flags=ANNOUNCE))
    client.act(1, Op.ADD_RADDR, "close", address("10.2.0.1", flags=WITHDRAW))
    lab.connect(lab.listen())
    wait_for("ADD_ADDR", lambda: lab.server.counter("AddAddr") == 1)
    lab.server.mptcp("endpoint", "add", "10.9.0.2", "signal")
    wait_for("RM_ADDR", lambda: lab.server.counter("RmAddr") == 1)


def test_subflow_limit(lab: Lab, client: Recorder) -> None:
    """net.mptcp.bpf_max_subflows bounds subflows and those asked for: EDQUOT."""
    accept_joins(lab)
    lab.client.sysctl("net.mptcp.bpf_max_subflows", 3)
    client.act(0, ESTABLISHED, "open", times=4)
    client.act(1, Op.SUBFLOW_ESTABLISHED, "open", remaining=9)
    lab.connect(lab.listen())
    wait_for("subflows", lambda: len(lab.client.subflows()) == 4)
    assert client.events(ESTABLISHED)[0].results[0] == -errno.EDQUOT
    wait_for("events", lambda: client.count(Op.SUBFLOW_ESTABLISHED) == 3)
    assert {e.results[1] for e in client.events(Op.SUBFLOW_ESTABLISHED)} == {-errno.EDQUOT}
    assert lab.client.counter("BPFReqRefused") == 4


def test_subflow_limit_of_joins(lab: Lab, server: Recorder) -> None:
    """The limit counts what the peer opens, too: further joins are reset."""
    lab.server.sysctl("net.mptcp.bpf_max_subflows", 1)
    lab.client.mptcp("limits", "set", "subflows", "8")
    lab.client.mptcp("endpoint", "add", "10.2.0.1", "dev", "eth2", "subflow")
    lab.client.ip("addr", "add", "10.1.0.9/24", "dev", "eth1")
    lab.client.mptcp("endpoint", "add", "10.1.0.9", "dev", "eth1", "subflow")
    lab.client.ip("route", "add", "10.1.0.2/32", "dev", "eth2", "src", "10.2.0.1", "metric", "500")
    lab.server.ip("addr", "add", "10.1.0.22/24", "dev", "eth1")
    ends = lab.connect(lab.listen("0.0.0.0"))
    exchange(*ends)
    wait_for("one join", lambda: server.count(Op.SUBFLOW_ESTABLISHED) == 1)
    assert len(lab.server.subflows()) <= 2


def test_request_limit(lab: Lab, server: Recorder) -> None:
    """net.mptcp.bpf_max_requests bounds what waits (here for accept()): ENOBUFS."""
    lab.server.sysctl("net.mptcp.bpf_max_requests", 5)
    lab.server.sysctl("net.mptcp.bpf_request_rate", 0)
    server.act(0, ESTABLISHED, "open", times=6)
    lab.listen()
    sock = lab.keep(lab.client.socket())
    sock.connect(("10.1.0.2", 5000))
    sock.sendall(b"x")
    (event,) = wait_for("session", lambda: server.events(ESTABLISHED))
    assert event.results[0] == -errno.ENOBUFS
    assert lab.server.counter("BPFReq") == 5


def test_rate_limit(lab: Lab, client: Recorder) -> None:
    """Beyond the burst of bpf_max_requests, bpf_request_rate per second pass: EAGAIN."""
    lab.client.sysctl("net.mptcp.bpf_max_requests", 10)
    lab.client.sysctl("net.mptcp.bpf_request_rate", 1)
    client.act(0, ESTABLISHED, "close", address("10.2.0.1"), times=8)  # nothing there: cheap
    client.act(1, Op.ADD_RADDR, "close", address("10.2.0.1"), times=3)
    lab.connect(lab.listen())
    wait_for("served", lambda: lab.client.counter("BPFReqFailed") == 8)
    lab.server.mptcp("endpoint", "add", "10.9.0.2", "signal")
    (event,) = wait_for("callback", lambda: client.events(Op.ADD_RADDR))
    assert event.results[1] == -errno.EAGAIN


def test_requests_wait_for_accept(lab: Lab, server: Recorder) -> None:
    """What the server's program asks for before accept() is done after it."""
    lab.client.mptcp("limits", "set", "subflows", "8")
    lab.keep(lab.client.listen("10.2.0.1", 6000))
    server.act(0, ESTABLISHED, "open", address("10.2.0.2"), address("10.2.0.1", 6000))
    listener = lab.listen()
    sock = lab.keep(lab.client.socket())
    sock.connect(("10.1.0.2", 5000))
    sock.sendall(b"x")
    (event,) = wait_for("session", lambda: server.events(ESTABLISHED))
    assert event.results[0] == 0
    assert lab.server.counter("MPJoinSynTx") == 0
    lab.keep(listener.accept()[0])
    wait_for("MP_JOIN", lambda: lab.server.counter("MPJoinSynTx") == 1)


def test_helper_on_plain_tcp(lab: Lab) -> None:
    """On a TCP socket that is no subflow: EOPNOTSUPP."""
    program = Program("plain", function="plain")
    program.attach(lab.client.cgroup)
    lab.connect(lab.listen(protocol=socket.IPPROTO_TCP), protocol=socket.IPPROTO_TCP)
    results = program.module[b"results"]
    assert [results[i].value for i in range(2)] == [-errno.EOPNOTSUPP] * 2
    assert [results[i].value for i in range(2, 4)] == [0, 0], "tokens"
