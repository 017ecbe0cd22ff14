# SPDX-License-Identifier: Apache-2.0
"""Claimed sessions: who manages them, and how netlink commands, endpoints and programs get on together."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from pm.errors import KernelRefused
from pm.kernel import EventType
from pm.linux.netlink.mptcp_pm import PathManagerSocket
from tests.lab.recorder import CLAIM, Event, Op, Recorder, address
from tests.lab.sock_ops import SockOpsProgram
from tests.lab.two_hosts import TwoHosts, exchange
from tests.lab.waiting import wait_equal, wait_for


def serve_two_paths(hosts: TwoHosts) -> None:
    """The server accepts as many subflows as come; the client has a second endpoint."""
    hosts.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    hosts.client.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    hosts.client.mptcp("endpoint", "add", "10.2.0.1", "dev", "eth2", "subflow")
    hosts.server.mptcp("endpoint", "add", "10.2.0.2", "signal")


@pytest.fixture
def genl(hosts: TwoHosts, client: Recorder) -> Iterator[PathManagerSocket]:
    """The client's netlink commands and events."""
    with hosts.client.inside():
        sock = PathManagerSocket.open()
    with sock:
        yield sock


def open_second_subflow(hosts: TwoHosts, client: Recorder) -> Event:
    """10.2.0.1 to 10.2.0.2, of a claimed session, after data: its SUBFLOW_ESTABLISHED."""
    hosts.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    client.act(0, Op.FULLY_ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    (event,) = wait_for(lambda: client.events(Op.SUBFLOW_ESTABLISHED), "subflow")
    exchange(*ends, b"y" * 5000)
    wait_equal(lambda: client.count(Op.FULLY_ESTABLISHED), 2)
    return event


def reset_at_the_server(hosts: TwoHosts) -> None:
    """The server's end of the second subflow goes, with a reset to the client."""
    hosts.server.run("ss", "-K", "dst", "10.2.0.1")


def test_claimed_and_kernel_managed_sessions_side_by_side(hosts: TwoHosts, client: Recorder) -> None:
    """Of two sessions of one namespace, the claimed one keeps its one subflow, the other gets more."""
    serve_two_paths(hosts)
    listener = hosts.listen("0.0.0.0")
    claimed = hosts.connect(listener)
    client.reply(new_session=0)
    kernel = hosts.connect(listener)
    exchange(*kernel)
    exchange(*claimed)
    wait_for(lambda: len(hosts.client.subflows()) >= 3, "kernel's subflows")
    ports = [flow.local_port for flow in hosts.client.subflows()]
    assert ports.count(claimed[0].getsockname()[1]) == 1
    tokens = {e.tokens[0] for e in client.events(Op.ADD_RADDR)}
    assert tokens == {client.events(Op.NEW_SESSION)[0].tokens[0]}, "only the claimed one reports"
    assert hosts.client.counter("BPFClaimed") == 1


def test_endpoint_changes_leave_claimed_sessions_alone(hosts: TwoHosts, client: Recorder) -> None:
    """Endpoints added, changed and removed later open and close nothing on a claimed session."""
    hosts.server.mptcp("limits", "set", "subflows", "8")
    hosts.connect(hosts.listen("0.0.0.0"))
    hosts.client.mptcp("limits", "set", "subflows", "8")
    hosts.client.mptcp("endpoint", "add", "10.2.0.1", "id", "3", "dev", "eth2", "subflow")
    hosts.client.mptcp("endpoint", "change", "id", "3", "backup")
    hosts.client.mptcp("endpoint", "delete", "id", "3")
    hosts.client.mptcp("endpoint", "flush")
    assert len(hosts.client.subflows()) == 1
    assert hosts.client.counter("MPJoinSynTx") == 0


def test_attached_program_that_claims_nothing_changes_nothing(hosts: TwoHosts, client: Recorder) -> None:
    """With a program that claims nothing, the kernel's path manager makes its subflows."""
    serve_two_paths(hosts)
    client.reply(new_session=0)
    exchange(*hosts.connect(hosts.listen("0.0.0.0")))
    wait_for(lambda: len(hosts.client.subflows()) >= 2, "kernel's subflows")


def test_genl_commands_work_on_a_claimed_session(hosts: TwoHosts, client: Recorder) -> None:
    """SUBFLOW_CREATE, SET_FLAGS, ANNOUNCE, REMOVE and SUBFLOW_DESTROY serve a claimed session."""
    hosts.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    token = client.events(Op.NEW_SESSION)[0].tokens[0]
    with hosts.client.inside(), PathManagerSocket.open() as genl:
        genl.create_subflow(token, genl.prepare_subflow("10.2.0.1", 1, "10.2.0.2", 5000, backup=False))
        wait_equal(lambda: len(hosts.client.subflows()), 2)
        exchange(*ends, b"y" * 5000)
        genl.announce(token, "10.2.0.1", 1)
        wait_equal(lambda: hosts.server.counter("AddAddr"), 1)
        genl.withdraw(token, 1)
        wait_equal(lambda: hosts.server.counter("RmAddr"), 1)


def test_genl_priority(hosts: TwoHosts, client: Recorder, server: Recorder, genl: PathManagerSocket) -> None:
    """SET_FLAGS changes the backup flag of a claimed session's subflow; its peer has the event."""
    with hosts.server.inside():
        peer = PathManagerSocket.open()
    with peer:
        subflow = open_second_subflow(hosts, client)
        for backup in (True, False):
            path = ("10.2.0.1", subflow.ports[0], "10.2.0.2", 5000)
            genl.set_backup(subflow.tokens[0], *path, backup=backup)
            event = wait_for(
                lambda: [m.decode() for m in peer.read_events() if m.type == EventType.SUB_PRIORITY],
                "SUB_PRIORITY",
            )[0]
            assert event.backup is backup
            assert event.token == subflow.tokens[1]
    assert hosts.server.counter("MPPrioRx") == 2


def test_genl_destroy(hosts: TwoHosts, client: Recorder, server: Recorder, genl: PathManagerSocket) -> None:
    """SUBFLOW_DESTROY ends a claimed session's subflow, for its program without an error; events are sent."""
    subflow = open_second_subflow(hosts, client)
    genl.destroy_subflow(subflow.tokens[0], "10.2.0.1", subflow.ports[0], "10.2.0.2", 5000, socket_family=4)
    assert [e.args for e in client.events(Op.SUBFLOW_CLOSED)] == [(0, 1, 1, 0)]
    wait_equal(lambda: server.count(Op.SUBFLOW_CLOSED), 1)
    assert len(hosts.client.subflows()) == 1
    types = [m.type for m in genl.read_events()]
    assert types == [
        EventType.CREATED,
        EventType.ESTABLISHED,
        EventType.SUB_ESTABLISHED,
        EventType.SUB_CLOSED,
    ]


def test_genl_destroy_before_the_answer(hosts: TwoHosts, client: Recorder, genl: PathManagerSocket) -> None:
    """A connect() that SUBFLOW_DESTROY cuts short ends without an error, though TCP calls it a reset."""
    hosts.client.lose("10.2.0.9", "eth2")
    client.act(0, Op.FULLY_ESTABLISHED, "open", address("10.2.0.1", 7777), address("10.2.0.9"))
    hosts.connect(hosts.listen())
    wait_equal(lambda: hosts.client.counter("MPJoinSynTx"), 1)
    token = client.events(Op.NEW_SESSION)[0].tokens[0]
    genl.destroy_subflow(token, "10.2.0.1", 7777, "10.2.0.9", 5000, socket_family=4)
    assert [e.args[0] for e in client.events(Op.SUBFLOW_CLOSED)] == [0]


def test_genl_withdraw(hosts: TwoHosts, client: Recorder, genl: PathManagerSocket) -> None:
    """REMOVE of an address id makes the peer close its subflows: no error for the program."""
    subflow = open_second_subflow(hosts, client)
    genl.withdraw(subflow.tokens[0], 1)
    wait_equal(lambda: client.count(Op.SUBFLOW_CLOSED), 1)
    assert client.events(Op.SUBFLOW_CLOSED)[0].args == (0, 1, 1, 0)
    assert hosts.server.counter("RmAddr") == 1


def test_genl_withdraw_answered_by_a_reset(
    hosts: TwoHosts, client: Recorder, genl: PathManagerSocket
) -> None:
    """The subflow of a withdrawn address ends without an error, also where the peer resets it."""
    subflow = open_second_subflow(hosts, client)
    # RM_ADDR would go this way.
    hosts.client.run("tc", "qdisc", "add", "dev", "eth1", "root", "netem", "loss", "100%")
    genl.withdraw(subflow.tokens[0], 1)
    reset_at_the_server(hosts)
    wait_equal(lambda: client.count(Op.SUBFLOW_CLOSED), 1)
    assert client.events(Op.SUBFLOW_CLOSED)[0].args == (0, 1, 1, 0)
    assert hosts.server.counter("RmAddr") == 0


def test_reset_by_the_peer(hosts: TwoHosts, client: Recorder) -> None:
    """What the peer resets on its own ends with ECONNRESET."""
    open_second_subflow(hosts, client)
    reset_at_the_server(hosts)
    wait_equal(lambda: client.count(Op.SUBFLOW_CLOSED), 1)
    assert client.events(Op.SUBFLOW_CLOSED)[0].args == (errno.ECONNRESET, 1, 1, 0)


def test_genl_commands_are_refused_on_unclaimed_sessions(hosts: TwoHosts, client: Recorder) -> None:
    """Without a claim the kernel's path manager owns the session, and says so."""
    client.reply(new_session=0)
    hosts.connect(hosts.listen("0.0.0.0"))
    token = client.events(Op.NEW_SESSION)[0].tokens[0]
    with hosts.client.inside(), PathManagerSocket.open() as genl, pytest.raises(KernelRefused):
        genl.create_subflow(token, genl.prepare_subflow("10.2.0.1", 1, "10.2.0.2", 5000, backup=False))


def test_helpers_need_a_claim(hosts: TwoHosts, client: Recorder) -> None:
    """bpf_open_subflow on a session that nobody claimed is EPERM."""
    client.reply(new_session=0)
    client.act(0, Op.NEW_SESSION, "open")
    hosts.connect(hosts.listen())
    assert client.events()[0].results[0] == -errno.EPERM


def test_claim_outlives_the_program(hosts: TwoHosts, client: Recorder) -> None:
    """With the program detached, its sessions stay claimed; one attached later may take them."""
    ends = hosts.connect(hosts.listen())
    client.detach(hosts.client.cgroup)
    hosts.client.mptcp("limits", "set", "subflows", "8")
    hosts.client.mptcp("endpoint", "add", "10.2.0.1", "dev", "eth2", "subflow")
    exchange(*ends)
    assert len(hosts.client.subflows()) == 1
    client.reply(orphan_session=CLAIM)
    client.attach(hosts.client.cgroup)
    exchange(*ends)
    ends[0].close()
    wait_for(lambda: client.count(Op.CLOSE_SESSION), "close")


def test_claim_under_userspace_pm_type(hosts: TwoHosts, client: Recorder) -> None:
    """A claim works as well where net.mptcp.pm_type leaves path management to user space."""
    hosts.client.sysctl("net.mptcp.pm_type", 1)
    client.reply(new_session=CLAIM)
    client.act(0, Op.FULLY_ESTABLISHED, "open")
    hosts.server.mptcp("limits", "set", "subflows", "8")
    hosts.connect(hosts.listen())
    wait_equal(lambda: len(hosts.client.subflows()), 2)


def test_first_program_of_the_cgroup_tree_may_claim(hosts: TwoHosts, client: Recorder) -> None:
    """A second program on the cgroup that leaves the reply alone does not undo the claim."""
    other = SockOpsProgram("silent")
    other.attach(hosts.client.cgroup)
    hosts.connect(hosts.listen())
    assert hosts.client.counter("BPFClaimed") == 1
