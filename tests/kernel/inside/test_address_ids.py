# SPDX-License-Identifier: Apache-2.0
"""Ids of local addresses: one address has one id, and one id is one address's, whatever is on its way."""

from __future__ import annotations

import errno
import struct
import threading

import pytest

from tests.lab.page_fault import PageFault
from tests.lab.path_manager_programs import accept_joins, netlink
from tests.lab.recorder import Event, Op, Recorder, address
from tests.lab.sock_ops import SockOpsProgram
from tests.lab.two_hosts import Host, Socket, TwoHosts, disconnect, exchange
from tests.lab.waiting import wait_equal, wait_for

ANNOUNCE, WITHDRAW = 2, 8
SOL_MPTCP, MPTCP_INFO, LOCAL_ADDR_USED_AT = 284, 1, 40  # struct mptcp_info
LOCAL = 1  # of the arguments of SUBFLOW_*


def call(host: Host, last: int) -> None:
    """The programs of the host are called: it has one more address."""
    host.ip("addr", "add", f"10.1.0.{last}/24", "dev", "eth1")


def done(recorder: Recorder, number: int) -> Event:
    """What the recorder was told of its request ``number``."""
    return wait_for(lambda: recorder.events(Op.REQUEST_DONE)[number - 1 :], f"answer {number}")[0]


def ask(host: Host, recorder: Recorder, kind: str, src: bytes) -> int:
    """The program of the host asks for something, which is done; the local id that it is told."""
    number = recorder.count(Op.REQUEST_DONE) + 1
    recorder.act(0, Op.ADDRESS_CHANGED, kind, src)
    call(host, 100 + number)
    event = done(recorder, number)
    assert event.args[0] == 0
    return event.args[1]


@pytest.fixture
def join_on_its_way(hosts: TwoHosts, client: Recorder, server: Recorder) -> tuple[Socket, Socket]:
    """A session with a subflow at the server's 10.2.0.2, id 1, and a SYN for another: its SYN/ACK is lost."""
    hosts.client.ip("addr", "add", "10.2.0.9/24", "dev", "eth2")
    hosts.server.lose("10.2.0.9", "eth2")
    client.act(0, Op.FULLY_ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    client.act(1, Op.SUBFLOW_ESTABLISHED, "open", address("10.2.0.9"), address("10.2.0.2"))
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    (event,) = wait_for(lambda: server.events(Op.SUBFLOW_ESTABLISHED), "the first one")
    assert event.args[LOCAL] == 1
    wait_equal(lambda: hosts.server.counter("MPJoinSynRx"), 2)
    return ends


def close_the_first(hosts: TwoHosts, server: Recorder) -> None:
    server.act(0, Op.ADDRESS_CHANGED, "close", b"", address("10.2.0.1"))
    call(hosts.server, 78)
    wait_equal(lambda: server.count(Op.SUBFLOW_CLOSED), 1)


def assert_reset(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """Now the SYN/ACK gets through, and the second subflow does not come about."""
    hosts.server.find("10.2.0.9", "eth2")
    reset = wait_for(lambda: client.events(Op.SUBFLOW_CLOSED)[1:], "the end of the second one")[0]
    assert reset.args[0] == errno.ECONNRESET
    assert server.count(Op.SUBFLOW_ESTABLISHED) == 1


def test_join_keeps_the_id_that_its_address_had(
    hosts: TwoHosts, join_on_its_way: tuple[Socket, Socket], server: Recorder
) -> None:
    """The last subflow with the id ends before it: another address gets another one, and can be withdrawn."""
    close_the_first(hosts, server)
    hosts.server.find("10.2.0.9", "eth2")
    wait_equal(lambda: server.count(Op.SUBFLOW_ESTABLISHED), 2)
    assert ask(hosts.server, server, "open", address("10.1.0.78", flags=ANNOUNCE)) == 2
    assert ask(hosts.server, server, "close", address("10.1.0.78", flags=WITHDRAW)) == 2
    assert server.count(Op.SUBFLOW_CLOSED) == 1
    assert ask(hosts.server, server, "close", address("10.2.0.2", flags=WITHDRAW)) == 1
    last = wait_for(lambda: server.events(Op.SUBFLOW_CLOSED)[1:], "the end of the second one")[0]
    assert (last.args[LOCAL], last.raddr) == (1, server.events(Op.SUBFLOW_CLOSED)[0].raddr)
    exchange(*join_on_its_way)


def test_join_whose_id_another_address_has_now(
    hosts: TwoHosts, join_on_its_way: tuple[Socket, Socket], client: Recorder, server: Recorder
) -> None:
    """It is reset: two addresses would have one id."""
    close_the_first(hosts, server)
    assert ask(hosts.server, server, "open", address("10.1.0.78", flags=ANNOUNCE)) == 1
    assert_reset(hosts, client, server)
    exchange(*join_on_its_way)


def test_join_to_an_address_that_was_withdrawn(
    hosts: TwoHosts, join_on_its_way: tuple[Socket, Socket], client: Recorder, server: Recorder
) -> None:
    """It is reset; the peer can ask again, and the address has an id again."""
    assert ask(hosts.server, server, "close", address("10.2.0.2", flags=WITHDRAW)) == 1
    assert_reset(hosts, client, server)
    client.act(0, Op.ADDRESS_CHANGED, "open", address("10.2.0.9"), address("10.2.0.2"))
    hosts.client.ip("addr", "add", "10.2.0.77/24", "dev", "eth2")
    wait_equal(lambda: server.count(Op.SUBFLOW_ESTABLISHED), 2)
    exchange(*join_on_its_way)


def test_join_to_a_withdrawn_address_whose_id_another_had(
    hosts: TwoHosts, join_on_its_way: tuple[Socket, Socket], client: Recorder, server: Recorder
) -> None:
    """It is reset as well: a subflow from another address took the id, and failed."""
    assert ask(hosts.server, server, "close", address("10.2.0.2", flags=WITHDRAW)) == 1
    server.act(1, Op.ADDRESS_CHANGED, "open", address("10.1.0.101"), address("10.1.0.1", 9))
    call(hosts.server, 79)
    failed = wait_for(lambda: server.events(Op.SUBFLOW_CLOSED)[1:], "the failure")[0]
    assert failed.args[:2] == (errno.ECONNREFUSED, 1)
    assert_reset(hosts, client, server)
    exchange(*join_on_its_way)


def test_join_to_an_address_that_is_withdrawn_just_now(
    hosts: TwoHosts, client: Recorder, server: Recorder
) -> None:
    """It is complete while the kernel serves requests, the last of which is the withdrawal: it is reset."""
    busy = SockOpsProgram("busy")
    busy.attach(hosts.server.cgroup)
    for limit, value in (("max_subflows", 250), ("max_requests", 255), ("request_rate", 0)):
        hosts.server.sysctl(f"net.mptcp.bpf_{limit}", value)
    client.act(0, Op.FULLY_ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    wait_equal(lambda: server.count(Op.SUBFLOW_ESTABLISHED), 1)
    # The SYN/ACK takes 1.5 s, the requests 3 to 4 s; the RM_ADDR is lost.
    hosts.server.run("tc", "qdisc", "add", "dev", "eth2", "root", "netem", "delay", "1.5s")
    client.act(0, Op.ADDRESS_CHANGED, "open", address("10.2.0.1"), address("10.2.0.2"))
    call(hosts.client, 77)
    wait_equal(lambda: hosts.server.counter("MPJoinSynRx"), 2)
    hosts.server.lose("10.1.0.1", "eth1")
    busy.write("busy_ns", 0, struct.pack("=Q", 50_000_000))
    server.act(0, Op.ADDRESS_CHANGED, "open", address("10.1.0.78"), address("10.1.0.1", 9), times=80)
    server.act(1, Op.ADDRESS_CHANGED, "close", address("10.2.0.2", flags=WITHDRAW))
    call(hosts.server, 78)
    wait_for(lambda: server.events(Op.REQUEST_DONE), "the withdrawal")
    order = [event.op for event in server.events(Op.SUBFLOW_ESTABLISHED, Op.REQUEST_DONE)]
    assert order == [Op.SUBFLOW_ESTABLISHED, Op.SUBFLOW_ESTABLISHED, Op.REQUEST_DONE]
    wait_equal(lambda: [flow.local_id for flow in hosts.server.subflows()], [0])
    busy.detach()
    hosts.server.find("10.1.0.1", "eth1")
    exchange(*ends)


def test_subflow_by_netlink_whose_id_is_just_forgotten(hosts: TwoHosts, client: Recorder) -> None:
    """The last subflow with the id ends while SUBFLOW_CREATE waits for the session: its own has it again."""
    accept_joins(hosts)
    client.act(0, Op.FULLY_ESTABLISHED, "open", address("10.1.0.9"), address("10.1.0.2"))
    end, _ = hosts.connect(hosts.listen("0.0.0.0"))
    wait_equal(lambda: [f.local_id for f in hosts.client.subflows() if f.local == "10.1.0.9"], [1])
    token = client.events(Op.NEW_SESSION)[0].tokens[0]
    with PageFault() as fault, netlink(hosts.client) as genl:
        pair = genl.prepare_subflow("10.1.0.9", 1, "10.1.0.2", 5000, backup=False)
        writer = threading.Thread(target=end.send, args=(fault.memory,))
        creator = threading.Thread(target=genl.create_subflow, args=(token, pair))
        writer.start()
        wait_for(fault.waits, "a writer that sleeps with the session")
        hosts.client.run("ss", "-K", "-tn", "src", "10.1.0.9", "dport", "=", "5000")
        creator.start()
        fault.end()
        writer.join()
        creator.join()
    wait_equal(lambda: client.count(Op.SUBFLOW_ESTABLISHED), 2)
    wait_equal(lambda: client.count(Op.SUBFLOW_CLOSED), 1)
    client.act(1, Op.ADDRESS_CHANGED, "open", address("10.2.0.1"), address("10.2.0.2"))
    call(hosts.client, 80)
    wait_equal(
        lambda: sorted((flow.local, flow.local_id) for flow in hosts.client.subflows()),
        [("10.1.0.1", 0), ("10.1.0.9", 1), ("10.2.0.1", 2)],
    )


def test_initial_address_of_the_next_session_of_a_socket(hosts: TwoHosts, client: Recorder) -> None:
    """It has id 0 as well, though the one before had another address; withdrawing another one spares it."""
    accept_joins(hosts)
    listener = hosts.listen("0.0.0.0")
    end, _ = hosts.connect(listener)
    disconnect(end)
    client.act(0, Op.FULLY_ESTABLISHED, "open", address("10.1.0.9"), address("10.1.0.2"))
    end.connect(("10.2.0.2", 5000))
    peer = hosts.keep(listener.accept()[0])
    exchange(end, peer)
    wait_equal(
        lambda: sorted((flow.local, flow.local_id) for flow in hosts.client.subflows()),
        [("10.1.0.9", 1), ("10.2.0.1", 0)],
    )
    assert hosts.client.mptcp("endpoint", "show") == ""
    assert ask(hosts.client, client, "close", address("10.1.0.9", flags=WITHDRAW)) == 1
    wait_equal(lambda: client.count(Op.SUBFLOW_CLOSED), 1)
    exchange(end, peer)
    assert [flow.local for flow in hosts.client.subflows()] == ["10.2.0.1"]


def test_withdrawn_addresses_are_not_counted(hosts: TwoHosts, client: Recorder) -> None:
    """mptcpi_local_addr_used is what it was before the announcement."""
    end, peer = hosts.connect(hosts.listen("0.0.0.0"))

    def used() -> int:
        return end.getsockopt(SOL_MPTCP, MPTCP_INFO, 64)[LOCAL_ADDR_USED_AT]

    for _ in range(2):
        ask(hosts.client, client, "open", address("10.2.0.1", flags=ANNOUNCE))
        assert used() == 1
        exchange(end, peer)
        ask(hosts.client, client, "close", address("10.2.0.1", flags=WITHDRAW))
        assert used() == 0
