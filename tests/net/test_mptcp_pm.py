# SPDX-License-Identifier: Apache-2.0
"""The path-manager socket on the running kernel: refusals in its own words, and lost events."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pm.clock import Moment
from pm.errors import KernelRefused
from pm.kernel import EventsLost, EventType, MptcpEvent
from pm.linux.netlink import pyroute2_family
from pm.linux.netlink.generic_netlink import find_family
from pm.linux.netlink.mptcp_pm import PathManagerSocket
from pm.linux.netlink.mptcp_pm_messages import EVENT_GROUP, FAMILY, Command
from pm.linux.netlink.sock_diag import SockDiag
from pm.sessions.dump_merge import merge_session
from pm.sessions.session_table import SessionTable
from tests.lab.lab import Lab
from tests.lab.netns import inside
from tests.lab.waiting import wait_for


def events(sock: PathManagerSocket) -> list[MptcpEvent]:
    """What waits, decoded."""
    return [message.decode() for message in sock.read_events()]


def test_refusal_carries_the_kernels_words(lab: Lab) -> None:
    """An unknown token: EINVAL with the extended acknowledgement, for every command."""
    with inside(lab.netns("client"), PathManagerSocket.open) as sock:
        commands: list[Callable[[], None]] = [
            lambda: sock.create_subflow(1, sock.prepare_subflow("10.0.0.1", 1, "10.0.0.2", 80, backup=False)),
            lambda: sock.destroy_subflow(1, "10.0.0.1", 1, "10.0.0.2", 80, socket_family=4),
            lambda: sock.set_backup(1, "10.0.0.1", 1, "10.0.0.2", 80, backup=True),
            lambda: sock.announce(1, "10.0.0.1", 1),
            lambda: sock.withdraw(1, 1),
        ]
        for command in commands:
            with pytest.raises(KernelRefused) as refused:
                command()
            assert (refused.value.errno_name, refused.value.reason) == ("EINVAL", "invalid token")


def test_the_family_is_what_pyroute2_finds() -> None:
    """Id, commands and groups agree, and so does the error for a family that does not exist."""
    family = find_family(FAMILY)
    assert set(Command) <= family.commands
    assert EVENT_GROUP in family.groups
    assert pyroute2_family.find_family(FAMILY) == family
    for find in (find_family, pyroute2_family.find_family):
        with pytest.raises(FileNotFoundError):
            find("nonesuch")


def test_events_of_a_session(lab: Lab) -> None:
    """CREATED, ESTABLISHED and CLOSED with token, role and addresses, as ss has them."""
    lab.server()
    with inside(lab.netns("client"), PathManagerSocket.open) as sock:
        client = lab.client()
        client.open()
        ((token, (flow,)),) = lab.subflows().items()
        created, established = wait_for(lambda: events(sock), "two events", until=lambda got: len(got) == 2)
        assert (created.type, established.type) == (EventType.CREATED, EventType.ESTABLISHED)
        for event in (created, established):
            assert (event.token, event.server_side, event.family) == (token, False, 4)
            assert (event.local, event.local_port, event.remote, event.remote_port) == flow[:4]
        client.close()
        (closed,) = wait_for(lambda: [e for e in events(sock) if e.type == EventType.CLOSED], "CLOSED")
        assert closed.token == token


def test_server_side_is_told(lab: Lab) -> None:
    """The server's events say so: the role comes from the kernel."""
    with inside(lab.netns("server"), PathManagerSocket.open) as sock:
        lab.server()
        lab.client().open()
        (created,) = wait_for(lambda: [e for e in events(sock) if e.type == EventType.CREATED], "CREATED")
        assert created.server_side


def test_lost_events_are_noticed_and_the_dump_makes_good(lab: Lab) -> None:
    """A buffer for a few events, 50 sessions: ENOBUFS is raised, and sock_diag shows all of them."""
    lab.server()
    netns = lab.netns("client")
    small = 4096
    with (
        inside(netns, lambda: PathManagerSocket.open(small)) as sock,
        inside(netns, SockDiag.open) as diagnosis,
    ):
        client = lab.client()
        client.open(50)

        def drain() -> None:
            for _ in range(200):
                list(sock.read_events())

        with pytest.raises(EventsLost):
            drain()
        table = SessionTable({})
        for part in inside(netns, lambda: list(diagnosis.dump_subflows())):
            for record in part:
                merge_session(table, [record], 1, Moment(0.0, 0.0))
        assert set(table.by_token) == set(lab.subflows())
        assert all(s.state == "established" and s.role == "client" for s in table)
        # Until the socket is empty the kernel delivers nothing; what was in it is read all the same.
        while not sock.drain(1):
            pass
        waiting = sock.backlog()
        assert len(list(sock.read_events(waiting))) == waiting > 0 == sock.backlog()
        client.open(1)
        assert any(event.type == EventType.CREATED for event in sock.read_events())
