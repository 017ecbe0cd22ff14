# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import errno

import pytest

from pm.errors import KernelRefused
from pm.linux.mptcp_genl import PathManagerSocket
from tests.kernel.lab import Lab, exchange, wait_for
from tests.kernel.programs import CLAIM, Op, Program, Recorder


def serve_two_paths(lab: Lab) -> None:
    """The server accepts as many subflows as come; the client has a second endpoint."""
    lab.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    lab.client.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    lab.client.mptcp("endpoint", "add", "10.2.0.1", "dev", "eth2", "subflow")
    lab.server.mptcp("endpoint", "add", "10.2.0.2", "signal")


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
