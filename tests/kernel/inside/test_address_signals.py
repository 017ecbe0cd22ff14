# SPDX-License-Identifier: Apache-2.0
"""ADD_ADDR and RM_ADDR that cannot be sent at once, or come in a burst: nothing is lost, or it is told."""

from __future__ import annotations

import errno

import pytest

from pm.errors import KernelRefused
from tests.lab.capture import Capture
from tests.lab.forge import build, raw_socket, send
from tests.lab.path_manager_programs import accept_joins, netlink
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
    with netlink(hosts.client) as genl:
        genl.destroy_subflow(
            token, flow.local, flow.local_port, flow.remote, flow.remote_port, socket_family=4
        )
    wait_equal(lambda: len(hosts.client.subflows() + hosts.server.subflows()), 0)
    return ends, token


def change(hosts: TwoHosts) -> None:
    """The client's program is called."""
    hosts.client.ip("addr", "add", "10.2.0.9/24", "dev", "eth2")


def open_another(hosts: TwoHosts, ends: Ends, token: int, *, local: str = "10.2.0.1") -> None:
    """A subflow from another address, by which all that waits is sent."""
    with netlink(hosts.client) as genl:
        genl.create_subflow(token, genl.prepare_subflow(local, 99, "10.2.0.2", 5000, backup=False))
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
    wait_equal(lambda: [event.raddr[0] for event in server.events(Op.ADD_RADDR)], [6])


def test_withdraw_the_initial_address_beside_an_announcement(
    hosts: TwoHosts, client: Recorder, server: Recorder
) -> None:
    """On a living session, too, in one burst."""
    accept_joins(hosts)
    client.act(0, Op.FULLY_ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    wait_equal(lambda: client.count(Op.SUBFLOW_ESTABLISHED), 1)
    exchange(*ends, b"y" * 20000)
    client.act(0, Op.ADDRESS_CHANGED, "open", address("10.2.0.9", id=5, flags=ANNOUNCE))
    client.act(1, Op.ADDRESS_CHANGED, "close", address("10.1.0.1", flags=WITHDRAW))
    client.act(2, Op.ADDRESS_CHANGED, "close", address(id=5, flags=WITHDRAW))
    change(hosts)
    wait_equal(lambda: done(client), [0, 0, 0])
    wait_equal(lambda: [event.raddr[0] for event in server.events(Op.ADD_RADDR)], [5])
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
        wait_equal(lambda: [event.raddr[0] for event in server.events(Op.ADD_RADDR)], [5])
        genl.announce(token, "10.2.0.7", 6)  # the refused ones have left no id
        wait_equal(lambda: [event.raddr[0] for event in server.events(Op.ADD_RADDR)], [5, 6])


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
        wait_equal(lambda: [event.raddr[0] for event in server.events(Op.ADD_RADDR)], [ids[-1]])
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
