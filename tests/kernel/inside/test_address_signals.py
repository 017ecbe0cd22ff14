# SPDX-License-Identifier: Apache-2.0
"""ADD_ADDR and RM_ADDR that cannot be sent at once, or come in a burst: nothing is lost, or it is told."""

from __future__ import annotations

import errno

import pytest

from pm.errors import KernelRefused
from pm.linux.netlink.mptcp_pm import PathManagerSocket
from tests.lab.capture import Capture
from tests.lab.forge import build, raw_socket, send
from tests.lab.path_manager_programs import accept_joins, end_subflow, netlink
from tests.lab.recorder import REFUSE, Op, Recorder, address
from tests.lab.two_hosts import Socket, TwoHosts, exchange
from tests.lab.waiting import wait_equal, wait_for

ANNOUNCE, WITHDRAW = 2, 8
RM_ADDR_SUBTYPE = 4
MOST_IDS = 8  # of one RM_ADDR, MPTCP_RM_IDS_MAX

Ends = tuple[Socket, Socket]


@pytest.fixture
def mute(hosts: TwoHosts, client: Recorder, server: Recorder) -> tuple[Ends, int]:
    """A session without a subflow: what is to be sent waits. The ends, and the client's token."""
    accept_joins(hosts)
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    (flow,) = hosts.client.subflows()
    (token,) = (event.tokens[0] for event in client.events(Op.NEW_SESSION))
    end_subflow(hosts.client, token, flow)
    wait_equal(lambda: len(hosts.client.subflows() + hosts.server.subflows()), 0)
    return ends, token


def change(hosts: TwoHosts) -> None:
    """The client's program is called."""
    hosts.client.ip("addr", "add", "10.2.0.9/24", "dev", "eth2")


def open_by_netlink(genl: PathManagerSocket, token: int, local_id: int = 99, local: str = "10.2.0.1") -> None:
    """A subflow as the service opens it."""
    genl.create_subflow(token, genl.prepare_subflow(local, local_id, "10.2.0.2", 5000, backup=False))


def connect_twice(hosts: TwoHosts, client: Recorder) -> Ends:
    """A session with a second subflow, which can be used."""
    accept_joins(hosts)
    client.act(0, Op.FULLY_ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    wait_equal(lambda: client.count(Op.SUBFLOW_ESTABLISHED), 1)
    exchange(*ends, b"y" * 20000)
    return ends


def announced(server: Recorder) -> list[int]:
    """The ids whose ADD_ADDR the server had."""
    return [event.raddr[0] for event in server.events(Op.ADD_RADDR)]


def open_another(hosts: TwoHosts, ends: Ends, token: int, *, local: str = "10.2.0.1") -> None:
    """A subflow from another address, by which all that waits is sent."""
    with netlink(hosts.client) as genl:
        open_by_netlink(genl, token, local=local)
    wait_equal(lambda: [flow.local for flow in hosts.client.subflows()], [local])
    for _ in range(5):
        exchange(*ends)


def done(client: Recorder) -> list[int]:
    """The errnos of what was asked for."""
    return [event.args[0] for event in client.events(Op.REQUEST_DONE)]


def removed(server: Recorder) -> list[int]:
    """The ids whose RM_ADDR the server had."""
    return sorted(event.args[0] for event in server.events(Op.REM_RADDR))


def test_withdraw_what_was_not_announced_yet(
    hosts: TwoHosts, client: Recorder, server: Recorder, mute: tuple[Ends, int]
) -> None:
    """The ADD_ADDR that waits is not sent any more, the RM_ADDR is."""
    client.act(0, Op.ADDRESS_CHANGED, "open", address("10.2.0.9", id=5, flags=ANNOUNCE))
    client.act(1, Op.ADDRESS_CHANGED, "close", address(id=5, flags=WITHDRAW))
    change(hosts)
    wait_equal(lambda: done(client), [0, 0])
    open_another(hosts, *mute)
    wait_equal(lambda: removed(server), [5])
    assert not server.count(Op.ADD_RADDR)
    assert (hosts.client.counter("AddAddrTx"), hosts.client.counter("RmAddrTxDrop")) == (0, 0)


def test_withdraw_beside_another_announcement(
    hosts: TwoHosts, client: Recorder, server: Recorder, mute: tuple[Ends, int]
) -> None:
    """RM_ADDR waits beside an ADD_ADDR of another address; both are sent."""
    client.act(0, Op.ADDRESS_CHANGED, "open", address("10.2.0.9", id=5, flags=ANNOUNCE))
    client.act(1, Op.ADDRESS_CHANGED, "close", address(id=5, flags=WITHDRAW))
    client.act(2, Op.ADDRESS_CHANGED, "open", address("10.2.0.1", id=6, flags=ANNOUNCE))
    client.act(3, Op.ADDRESS_CHANGED, "close", address("10.1.0.1", flags=WITHDRAW))
    change(hosts)
    wait_equal(lambda: done(client), [0, 0, 0, 0])
    open_another(hosts, *mute, local="10.2.0.9")
    wait_equal(lambda: removed(server), [0, 5])
    wait_equal(lambda: announced(server), [6])


def test_withdraw_the_initial_address_beside_an_announcement(
    hosts: TwoHosts, client: Recorder, server: Recorder
) -> None:
    """On a living session, too, in one burst."""
    ends = connect_twice(hosts, client)
    client.act(0, Op.ADDRESS_CHANGED, "open", address("10.2.0.9", id=5, flags=ANNOUNCE))
    client.act(1, Op.ADDRESS_CHANGED, "close", address("10.1.0.1", flags=WITHDRAW))
    client.act(2, Op.ADDRESS_CHANGED, "close", address(id=5, flags=WITHDRAW))
    change(hosts)
    wait_equal(lambda: done(client), [0, 0, 0])
    wait_equal(lambda: announced(server), [5])
    wait_equal(lambda: removed(server), [0, 5])
    exchange(*ends)


def test_two_announcements_that_wait(
    hosts: TwoHosts, client: Recorder, server: Recorder, mute: tuple[Ends, int]
) -> None:
    """Only one can: the other is EBUSY, for the program as for the service, and can be asked for again."""
    ends, token = mute
    client.act(0, Op.ADDRESS_CHANGED, "open", address("10.2.0.9", id=5, flags=ANNOUNCE))
    client.act(1, Op.ADDRESS_CHANGED, "open", address("10.2.0.1", id=6, flags=ANNOUNCE))
    client.act(2, Op.ADDRESS_CHANGED, "open", address("10.2.0.9", id=5, flags=ANNOUNCE))
    change(hosts)
    wait_equal(lambda: done(client), [0, errno.EBUSY, 0])
    with netlink(hosts.client) as genl:
        with pytest.raises(KernelRefused, match="waits to be sent") as refused:
            genl.announce(token, "10.2.0.7", 7)
        assert refused.value.errno == errno.EBUSY
        open_another(hosts, ends, token)
        wait_equal(lambda: announced(server), [5])
        genl.announce(token, "10.2.0.7", 6)  # the refused ones have left no id
        wait_equal(lambda: announced(server), [5, 6])


def test_more_withdrawals_than_one_rm_addr_has_room_for(
    hosts: TwoHosts, client: Recorder, server: Recorder, mute: tuple[Ends, int]
) -> None:
    """The ninth is EBUSY, keeps its address announced, and can be asked for again."""
    ends, token = mute
    ids = range(11, 12 + MOST_IDS)
    with netlink(hosts.client) as genl:
        for number in ids:
            genl.announce(token, f"10.2.0.{number}", number)
            if number != ids[-1]:
                genl.withdraw(token, number)
        with pytest.raises(KernelRefused, match="wait to be sent") as refused:
            genl.withdraw(token, ids[-1])
        assert refused.value.errno == errno.EBUSY
        open_another(hosts, ends, token)
        wait_equal(lambda: removed(server), [*ids[:-1]])
        wait_equal(lambda: announced(server), [ids[-1]])
        genl.withdraw(token, ids[-1])
        wait_equal(lambda: removed(server), [*ids])


@pytest.mark.parametrize("by", ["program", "service"])
def test_address_that_is_used_again(
    hosts: TwoHosts, client: Recorder, server: Recorder, mute: tuple[Ends, int], by: str
) -> None:
    """RM_ADDR of the initial address waits when a subflow from it is opened: it is not sent any more."""
    ends, token = mute
    client.act(0, Op.ADDRESS_CHANGED, "close", address("10.1.0.1", flags=WITHDRAW))
    if by == "program":
        client.act(1, Op.ADDRESS_CHANGED, "open")
    change(hosts)
    wait_equal(lambda: done(client), [0])
    if by == "service":
        with netlink(hosts.client) as genl:
            genl.create_subflow(token, genl.prepare_subflow("10.1.0.1", 0, "10.1.0.2", 5000, backup=False))
    wait_equal(lambda: [flow.local for flow in hosts.client.subflows()], ["10.1.0.1"])
    for _ in range(5):
        exchange(*ends)
    assert removed(server) == []
    assert len(hosts.client.subflows()) == 1


def test_id_whose_removal_waits_is_not_given_out(
    hosts: TwoHosts, client: Recorder, server: Recorder, mute: tuple[Ends, int]
) -> None:
    """Else the RM_ADDR would end the subflow that has it now."""
    ends, _ = mute
    client.act(0, Op.ADDRESS_CHANGED, "open", address("10.2.0.9", flags=ANNOUNCE))
    client.act(1, Op.ADDRESS_CHANGED, "close", address("10.2.0.9", flags=WITHDRAW))
    client.act(2, Op.ADDRESS_CHANGED, "open", address("10.2.0.1"), address("10.2.0.2"))
    change(hosts)
    (told,) = wait_for(lambda: client.events(Op.SUBFLOW_ESTABLISHED), "subflow")
    (given,) = {event.args[1] for event in client.events(Op.REQUEST_DONE)}
    assert told.args[1] != given
    for _ in range(5):
        exchange(*ends)
    wait_equal(lambda: removed(server), [given])
    assert [flow.local for flow in hosts.client.subflows()] == ["10.2.0.1"]


@pytest.mark.parametrize("what", ["one removal", "two removals", "announcement"])
def test_signals_go_out_without_data(
    hosts: TwoHosts, client: Recorder, server: Recorder, mute: tuple[Ends, int], what: str
) -> None:
    """What waits is sent when a subflow has come, though the applications are silent."""
    _, token = mute
    ids = [11, 12] if what == "two removals" else [11]
    with netlink(hosts.client) as genl:
        for number in ids:
            genl.announce(token, f"10.2.0.{number}", number)
            if what != "announcement":
                genl.withdraw(token, number)
        open_by_netlink(genl, token)
        if what == "announcement":
            wait_equal(lambda: announced(server), ids)
            genl.announce(token, "10.2.0.12", 12)
            wait_equal(lambda: announced(server), [11, 12])
        else:
            wait_equal(lambda: removed(server), ids)


@pytest.mark.parametrize("how", ["unreachable", "refused", "another source", "by the service"])
def test_removal_outlives_an_open_that_does_not_use_the_address(
    hosts: TwoHosts, client: Recorder, server: Recorder, mute: tuple[Ends, int], how: str
) -> None:
    """RM_ADDR of the initial address is sent after a subflow from it has failed, or came from another one."""
    _, token = mute
    eth2 = int(hosts.client.ip("-o", "link", "show", "eth2").split(":")[0])
    wanted = {
        "unreachable": (address("10.1.0.1"), address("10.77.0.2")),
        "refused": (address("10.1.0.1"), address("10.1.0.2", 4999)),
        "another source": (address(ifindex=eth2), address("10.2.0.2")),
    }
    client.act(0, Op.ADDRESS_CHANGED, "close", address("10.1.0.1", flags=WITHDRAW))
    if how in wanted:
        client.act(1, Op.ADDRESS_CHANGED, "open", *wanted[how])
    change(hosts)
    wait_equal(lambda: done(client), [0])
    with netlink(hosts.client) as genl:
        if how == "by the service":
            with pytest.raises(KernelRefused):
                genl.create_subflow(
                    token, genl.prepare_subflow("10.1.0.1", 0, "10.77.0.2", 5000, backup=False)
                )
        elif how != "another source":
            wait_for(lambda: client.count(Op.SUBFLOW_CLOSED), "the failure")
        if how != "another source":
            open_by_netlink(genl, token)
    wait_equal(lambda: removed(server), [0])


def test_removal_does_not_go_with_a_join_that_is_refused(
    hosts: TwoHosts, client: Recorder, server: Recorder, mute: tuple[Ends, int]
) -> None:
    """It is not part of the third ACK, and is sent by the next subflow."""
    _, token = mute
    server.reply(join_request=REFUSE)
    with netlink(hosts.client) as genl:
        genl.announce(token, "10.2.0.11", 11)
        genl.withdraw(token, 11)
        open_by_netlink(genl, token)
        wait_equal(lambda: hosts.server.counter("BPFJoinRefused"), 1)
        server.reply()
        open_by_netlink(genl, token, 98)
    wait_equal(lambda: removed(server), [11])


def test_withdraw_the_initial_address_whose_subflow_failed(
    hosts: TwoHosts, client: Recorder, server: Recorder
) -> None:
    """It has id 0 whatever became of its subflow."""
    connect_twice(hosts, client)
    hosts.client.run("ss", "-K", "-tn", "src", "10.1.0.1")
    wait_for(lambda: client.count(Op.SUBFLOW_CLOSED), "the end of the initial subflow")
    client.act(1, Op.ADDRESS_CHANGED, "close", address("10.1.0.1", 9999, flags=WITHDRAW))
    change(hosts)
    wait_equal(lambda: done(client), [0])
    wait_equal(lambda: removed(server), [0])


def test_both_addresses_of_a_link_go(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """Neither RM_ADDR is sent by the other's subflow, whose address is gone from this host."""
    accept_joins(hosts)
    hosts.client.ip("addr", "add", "10.1.0.7/24", "dev", "eth1")
    client.act(0, Op.FULLY_ESTABLISHED, "open", address("10.1.0.7", id=3), address("10.1.0.2"))
    client.act(1, Op.FULLY_ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    wait_equal(lambda: client.count(Op.SUBFLOW_ESTABLISHED), 2)
    exchange(*ends, b"y" * 20000)
    wait_equal(lambda: client.count(Op.FULLY_ESTABLISHED), 3)
    client.act(2, Op.ADDRESS_CHANGED, "close", address("10.1.0.1", flags=WITHDRAW))
    client.act(3, Op.ADDRESS_CHANGED, "close", address("10.1.0.7", flags=WITHDRAW))
    hosts.client.ip("addr", "flush", "dev", "eth1", "scope", "global")
    wait_equal(lambda: done(client), [0, 0])
    wait_equal(lambda: removed(server), [0, 3])
    wait_equal(lambda: [flow.local for flow in hosts.client.subflows()], ["10.2.0.1"])


def test_address_with_two_ids(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """Used without a port and announced with one: WITHDRAW by address takes back both."""
    connect_twice(hosts, client)
    client.act(1, Op.ADDRESS_CHANGED, "open", address("10.2.0.1", 7777, flags=ANNOUNCE))
    client.act(2, Op.ADDRESS_CHANGED, "close", address("10.2.0.1", flags=WITHDRAW))
    change(hosts)
    wait_equal(lambda: done(client), [0, 0])
    wait_equal(lambda: removed(server), [1, 2])


def test_two_closes_of_one_subflow(hosts: TwoHosts, client: Recorder) -> None:
    """The second finds none, though the initial subflow is still there to say goodbye."""
    connect_twice(hosts, client)
    client.act(1, Op.ADDRESS_CHANGED, "close", address("10.1.0.1"), times=2)
    change(hosts)
    wait_equal(lambda: done(client), [0, errno.ESRCH])


@pytest.mark.parametrize("what", ["one of two subflows is closed", "a subflow cannot be opened"])
def test_id_stays_while_it_is_announced(
    hosts: TwoHosts, client: Recorder, server: Recorder, what: str
) -> None:
    """Whatever the service does with subflows from the address, it can be withdrawn by its id."""
    accept_joins(hosts)
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    (token,) = (event.tokens[0] for event in client.events(Op.NEW_SESSION))
    with netlink(hosts.client) as genl:
        genl.announce(token, "10.2.0.1", 5)
        wait_equal(lambda: announced(server), [5])
        if what == "a subflow cannot be opened":
            with pytest.raises(KernelRefused):
                genl.create_subflow(
                    token, genl.prepare_subflow("10.2.0.1", 5, "10.77.0.2", 5000, backup=False)
                )
        else:
            for _ in range(2):
                open_by_netlink(genl, token, 5)
            wait_equal(lambda: len(hosts.client.subflows()), 3)
            exchange(*ends, b"y" * 20000)
            flow = next(flow for flow in hosts.client.subflows() if flow.local == "10.2.0.1")
            end_subflow(hosts.client, token, flow)
            wait_equal(lambda: len(hosts.client.subflows()), 2)
        genl.withdraw(token, 5)
    wait_equal(lambda: removed(server), [5])


def test_removals_of_the_peer_in_a_burst(hosts: TwoHosts, client: Recorder) -> None:
    """All are done that the program was told of: the second comes before the worker has seen the first."""
    hosts.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    for number, host in ((7, 2), (8, 22)):
        if host != 2:
            hosts.server.ip("addr", "add", f"10.2.0.{host}/24", "dev", "eth2")
        hosts.server.mptcp("endpoint", "add", f"10.2.0.{host}", "id", str(number), "signal")
    for index, host in enumerate((2, 22)):
        client.act(index, Op.FULLY_ESTABLISHED, "open", address("10.2.0.1"), address(f"10.2.0.{host}", 5000))
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    wait_equal(lambda: sorted(f.remote_id for f in hosts.client.subflows()), [0, 7, 8])
    with Capture("server", "eth1") as capture, raw_socket("server", "10.1.0.2") as raw:
        exchange(*ends)
        last = wait_for(
            lambda: [s for s in capture.segments() if s.source == ("10.1.0.2", 5000)], "a segment"
        )[-1]
        for number in (7, 8):
            option = bytes((30, 4, RM_ADDR_SUBTYPE << 4, number))
            where = last.source, last.destination, last.sequence + last.payload, last.acknowledgement
            send(raw, build(*where, options=option))
    wait_equal(lambda: sorted(event.args[0] for event in client.events(Op.REM_RADDR)), [7, 8])
    wait_equal(lambda: [f.remote_id for f in hosts.client.subflows()], [0])
    assert hosts.client.counter("RmAddrDrop") == 0


def test_joins_that_come_to_nothing_take_one_id(hosts: TwoHosts, client: Recorder, server: Recorder) -> None:
    """However often the peer is refused at an address of this host, it has one id there."""
    server.reply(join_request=REFUSE)
    client.act(0, Op.FULLY_ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    client.act(1, Op.SUBFLOW_CLOSED, "open", address("10.2.0.1"), address("10.2.0.2"), remaining=4)
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    wait_equal(lambda: hosts.server.counter("BPFJoinRefused"), 5)
    assert {event.args[1] for event in server.events(Op.JOIN_REQUEST)} == {1}
    exchange(*ends)
