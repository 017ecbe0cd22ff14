# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from pm.errors import KernelRefused
from pm.kernel import EventType
from pm.linux.netlink.mptcp_pm import PathManagerSocket
from tests.kernel.lab import Lab, exchange, run, wait_for
from tests.kernel.programs import CLAIM, Event, Op, Program, Recorder, address


def serve_two_paths(lab: Lab) -> None:
    """The server accepts as many subflows as come; the client has a second endpoint."""
    lab.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    lab.client.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    lab.client.mptcp("endpoint", "add", "10.2.0.1", "dev", "eth2", "subflow")
    lab.server.mptcp("endpoint", "add", "10.2.0.2", "signal")


@pytest.fixture
def genl(lab: Lab, client: Recorder) -> Iterator[PathManagerSocket]:
    """The client's netlink commands and events."""
    with lab.client.inside():
        sock = PathManagerSocket()
    with sock:
        yield sock


def open_second_subflow(lab: Lab, client: Recorder) -> Event:
    """10.2.0.1 to 10.2.0.2, of a claimed session, after data: its SUBFLOW_ESTABLISHED."""
    lab.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    client.act(0, Op.FULLY_ESTABLISHED, "open", address("10.2.0.1"), address("10.2.0.2"))
    ends = lab.connect(lab.listen("0.0.0.0"))
    (event,) = wait_for("subflow", lambda: client.events(Op.SUBFLOW_ESTABLISHED))
    exchange(*ends, b"y" * 5000)
    wait_for("usable", lambda: client.count(Op.FULLY_ESTABLISHED) == 2)
    return event


def reset_at_the_server(lab: Lab) -> None:
    """The server's end of the second subflow goes, with a reset to the client."""
    with lab.server.inside():
        run("ss", "-K", "dst", "10.2.0.1")


def test_claimed_and_kernel_managed_sessions_side_by_side(lab: Lab, client: Recorder) -> None:
    """Of two sessions of one namespace, the claimed one keeps its one subflow, the other gets more."""
    serve_two_paths(lab)
    listener = lab.listen("0.0.0.0")
    claimed = lab.connect(listener)
    client.reply(new_session=0)
    kernel = lab.connect(listener)
    exchange(*kernel)
    exchange(*claimed)
    wait_for("kernel's subflows", lambda: len(lab.client.subflows()) >= 3)
    ports = [int(local.rsplit(":", 1)[1]) for local, _ in lab.client.subflows()]
    assert ports.count(claimed[0].getsockname()[1]) == 1
    tokens = {e.tokens[0] for e in client.events(Op.ADD_RADDR)}
    assert tokens == {client.events(Op.NEW_SESSION)[0].tokens[0]}, "only the claimed one reports"
    assert lab.client.counter("BPFClaimed") == 1


def test_endpoint_changes_leave_claimed_sessions_alone(lab: Lab, client: Recorder) -> None:
    """Endpoints added, changed and removed later open and close nothing on a claimed session."""
    lab.server.mptcp("limits", "set", "subflows", "8")
    lab.connect(lab.listen("0.0.0.0"))
    lab.client.mptcp("limits", "set", "subflows", "8")
    lab.client.mptcp("endpoint", "add", "10.2.0.1", "id", "3", "dev", "eth2", "subflow")
    lab.client.mptcp("endpoint", "change", "id", "3", "backup")
    lab.client.mptcp("endpoint", "delete", "id", "3")
    lab.client.mptcp("endpoint", "flush")
    assert len(lab.client.subflows()) == 1
    assert lab.client.counter("MPJoinSynTx") == 0


def test_attached_program_that_claims_nothing_changes_nothing(lab: Lab, client: Recorder) -> None:
    """With a program that claims nothing, the kernel's path manager makes its subflows."""
    serve_two_paths(lab)
    client.reply(new_session=0)
    exchange(*lab.connect(lab.listen("0.0.0.0")))
    wait_for("kernel's subflows", lambda: len(lab.client.subflows()) >= 2)


def test_genl_commands_work_on_a_claimed_session(lab: Lab, client: Recorder) -> None:
    """SUBFLOW_CREATE, SET_FLAGS, ANNOUNCE, REMOVE and SUBFLOW_DESTROY serve a claimed session."""
    lab.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    ends = lab.connect(lab.listen("0.0.0.0"))
    token = client.events(Op.NEW_SESSION)[0].tokens[0]
    with lab.client.inside(), PathManagerSocket() as genl:
        genl.create_subflow(token, genl.prepare_subflow("10.2.0.1", 1, "10.2.0.2", 5000, backup=False))
        wait_for("subflow", lambda: len(lab.client.subflows()) == 2)
        exchange(*ends, b"y" * 5000)
        genl.announce(token, "10.2.0.1", 1)
        wait_for("announcement", lambda: lab.server.counter("AddAddr") == 1)
        genl.withdraw(token, 1)
        wait_for("withdrawal", lambda: lab.server.counter("RmAddr") == 1)


def test_genl_priority(lab: Lab, client: Recorder, server: Recorder, genl: PathManagerSocket) -> None:
    """SET_FLAGS changes the backup flag of a claimed session's subflow; its peer has the event."""
    with lab.server.inside():
        peer = PathManagerSocket()
    with peer:
        subflow = open_second_subflow(lab, client)
        for backup in (True, False):
            path = ("10.2.0.1", subflow.ports[0], "10.2.0.2", 5000)
            genl.set_backup(subflow.tokens[0], *path, backup=backup)
            event = wait_for(
                "event",
                lambda: [m.decode() for m in peer.read_events() if m.type == EventType.SUB_PRIORITY],
            )[0]
            assert event.backup is backup
            assert event.token == subflow.tokens[1]
    assert lab.server.counter("MPPrioRx") == 2


def test_genl_destroy(lab: Lab, client: Recorder, server: Recorder, genl: PathManagerSocket) -> None:
    """SUBFLOW_DESTROY ends a claimed session's subflow, for its program without an error; events are sent."""
    subflow = open_second_subflow(lab, client)
    genl.destroy_subflow(subflow.tokens[0], "10.2.0.1", subflow.ports[0], "10.2.0.2", 5000, socket_family=4)
    assert [e.args for e in client.events(Op.SUBFLOW_CLOSED)] == [(0, 1, 1, 0)]
    wait_for("close at the peer", lambda: server.count(Op.SUBFLOW_CLOSED) == 1)
    assert len(lab.client.subflows()) == 1
    types = [m.type for m in genl.read_events()]
    assert types == [
        EventType.CREATED,
        EventType.ESTABLISHED,
        EventType.SUB_ESTABLISHED,
        EventType.SUB_CLOSED,
    ]


def test_genl_destroy_before_the_answer(lab: Lab, client: Recorder, genl: PathManagerSocket) -> None:
    """Nor is it an error that TCP reports a connect() cut short by SUBFLOW_DESTROY as a reset."""
    lab.client.ip("neigh", "add", "10.2.0.9", "lladdr", "02:00:00:00:00:09", "dev", "eth2")  # nobody
    client.act(0, Op.FULLY_ESTABLISHED, "open", address("10.2.0.1", 7777), address("10.2.0.9"))
    lab.connect(lab.listen())
    wait_for("SYN", lambda: lab.client.counter("MPJoinSynTx") == 1)
    token = client.events(Op.NEW_SESSION)[0].tokens[0]
    genl.destroy_subflow(token, "10.2.0.1", 7777, "10.2.0.9", 5000, socket_family=4)
    assert [e.args[0] for e in client.events(Op.SUBFLOW_CLOSED)] == [0]


def test_genl_withdraw(lab: Lab, client: Recorder, genl: PathManagerSocket) -> None:
    """REMOVE of an address id makes the peer close its subflows: no error for the program."""
    subflow = open_second_subflow(lab, client)
    genl.withdraw(subflow.tokens[0], 1)
    wait_for("close", lambda: client.count(Op.SUBFLOW_CLOSED) == 1)
    assert client.events(Op.SUBFLOW_CLOSED)[0].args == (0, 1, 1, 0)
    assert lab.server.counter("RmAddr") == 1


def test_genl_withdraw_answered_by_a_reset(lab: Lab, client: Recorder, genl: PathManagerSocket) -> None:
    """Nor is it one where the peer ends the withdrawn address' subflow by a reset."""
    subflow = open_second_subflow(lab, client)
    with lab.client.inside():
        run("tc", "qdisc", "add", "dev", "eth1", "root", "netem", "loss", "100%")  # where RM_ADDR would go
    genl.withdraw(subflow.tokens[0], 1)
    reset_at_the_server(lab)
    wait_for("close", lambda: client.count(Op.SUBFLOW_CLOSED) == 1)
    assert client.events(Op.SUBFLOW_CLOSED)[0].args == (0, 1, 1, 0)
    assert lab.server.counter("RmAddr") == 0


def test_reset_by_the_peer(lab: Lab, client: Recorder) -> None:
    """What the peer resets on its own ends with ECONNRESET."""
    open_second_subflow(lab, client)
    reset_at_the_server(lab)
    wait_for("close", lambda: client.count(Op.SUBFLOW_CLOSED) == 1)
    assert client.events(Op.SUBFLOW_CLOSED)[0].args == (errno.ECONNRESET, 1, 1, 0)


def test_genl_commands_are_refused_on_unclaimed_sessions(lab: Lab, client: Recorder) -> None:
    """Without a claim the kernel's path manager owns the session, and says so."""
    client.reply(new_session=0)
    lab.connect(lab.listen("0.0.0.0"))
    token = client.events(Op.NEW_SESSION)[0].tokens[0]
    with lab.client.inside(), PathManagerSocket() as genl, pytest.raises(KernelRefused):
        genl.create_subflow(token, genl.prepare_subflow("10.2.0.1", 1, "10.2.0.2", 5000, backup=False))


def test_helpers_need_a_claim(lab: Lab, client: Recorder) -> None:
    """bpf_open_subflow on a session that nobody claimed is EPERM."""
    client.reply(new_session=0)
    client.act(0, Op.NEW_SESSION, "open")
    lab.connect(lab.listen())
    assert client.events()[0].results[0] == -errno.EPERM


def test_claim_outlives_the_program(lab: Lab, client: Recorder) -> None:
    """With the program detached, its sessions stay claimed; one attached later hears their end."""
    ends = lab.connect(lab.listen())
    client.detach(lab.client.cgroup)
    lab.client.mptcp("limits", "set", "subflows", "8")
    lab.client.mptcp("endpoint", "add", "10.2.0.1", "dev", "eth2", "subflow")
    exchange(*ends)
    assert len(lab.client.subflows()) == 1
    client.attach(lab.client.cgroup)
    ends[0].close()
    wait_for("close", lambda: client.count(Op.CLOSE_SESSION))


def test_claim_under_userspace_pm_type(lab: Lab, client: Recorder) -> None:
    """A claim works as well where net.mptcp.pm_type leaves path management to user space."""
    lab.client.sysctl("net.mptcp.pm_type", 1)
    client.reply(new_session=CLAIM)
    client.act(0, Op.FULLY_ESTABLISHED, "open")
    lab.server.mptcp("limits", "set", "subflows", "8")
    lab.connect(lab.listen())
    wait_for("subflow", lambda: len(lab.client.subflows()) == 2)


def test_first_program_of_the_cgroup_tree_may_claim(lab: Lab, client: Recorder) -> None:
    """A second program on the cgroup that leaves the reply alone does not undo the claim."""
    other = Program("silent", function="silent")
    other.attach(lab.client.cgroup)
    lab.connect(lab.listen())
    assert lab.client.counter("BPFClaimed") == 1
