# SPDX-License-Identifier: Apache-2.0
"""bpf_mptcp_locals() and ADDRESS_CHANGED: what a program sees of the host's addresses and links, and when."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

import pytest

from tests.kernel.inside.conftest import kernel_log
from tests.lab.path_manager_programs import end_subflow
from tests.lab.recorder import Op, Recorder, address
from tests.lab.sock_ops import SockOpsProgram
from tests.lab.two_hosts import Host, TwoHosts, exchange
from tests.lab.waiting import PATIENCE, wait_equal, wait_for

UP, TENTATIVE, DEPRECATED = 1 << 8, 1 << 9, 1 << 10
ADDRESSES = 0x4D500003
CALLS, REPLY_ESTABLISHED, REPLY_CHANGED, LENGTH_3, LENGTH_0 = 0, 2, 3, 4, 5
SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254}
MANY = 1000
STORM_S, STORM_RATE = 3, 200
_ADDRESS = struct.Struct("=HH4s16sIIII")


class Found(NamedTuple):
    ip: str
    scope: int
    ifindex: int
    flags: int


class Look(SockOpsProgram):
    """programs/look.c: it claims every session, and looks."""

    def __init__(self) -> None:
        super().__init__("look")

    def reset(self) -> None:
        self.detach()
        self.clear("views")
        self.clear("figures")
        self.empty("told")
        self.empty("calls")

    def reply(self, index: int) -> None:
        """The next callback of this kind asks for ADDRESS_CHANGED."""
        self.write("figures", index, ADDRESSES.to_bytes(4, "little"))

    def number(self) -> int:
        """How many addresses the helper said there are."""
        return int(struct.unpack_from("=i", self.read("views", 0))[0])

    def found(self) -> list[Found]:
        """What the helper last wrote."""
        entries = _ADDRESS.iter_unpack(self.read("views", 0)[8:])
        return [
            Found(str(ip_address(ip4 if family == socket.AF_INET else ip6)), scope, ifindex, flags)
            for family, _, ip4, ip6, scope, _, ifindex, flags in entries
            if family
        ]

    def flags(self, ip: str) -> int | None:
        """The flags of an address as it was last seen, None where it was not."""
        return next((a.flags for a in self.found() if a.ip == ip), None)

    def calls(self) -> int:
        return self.integers("figures")[CALLS]


@pytest.fixture(scope="module")
def loaded() -> Look:
    return Look()


@pytest.fixture
def carriers(hosts: TwoHosts) -> None:
    """The links of both hosts have theirs before a test begins, which is told of no such change then."""

    def up() -> bool:
        links = [
            json.loads(host.ip("-j", "link", "show", "type", "veth")) for host in (hosts.client, hosts.server)
        ]
        return all(link["operstate"] == "UP" for found in links for link in found)

    wait_for(up, "carriers")


@pytest.fixture
def look(hosts: TwoHosts, loaded: Look, carriers: None) -> Iterator[Look]:
    """It owns the client's sessions."""
    loaded.reset()
    loaded.attach(hosts.client.cgroup)
    yield loaded
    loaded.reset()


def listed(host: Host) -> list[Found]:
    """The addresses of a host by ``ip``."""
    links = json.loads(host.ip("-j", "addr"))
    return [
        Found(
            a["local"],
            SCOPES[a["scope"]],
            link["ifindex"],
            (UP if {"UP", "LOWER_UP"} <= set(link["flags"]) else 0)
            | (TENTATIVE if a.get("tentative") else 0)
            | (DEPRECATED if a.get("deprecated") else 0),
        )
        for link in links
        for a in link["addr_info"]
    ]


def wait_for_detection(host: Host) -> None:
    """Its links' own IPv6 addresses can be used: they change no more."""
    wait_for(lambda: not any(a.flags & TENTATIVE for a in listed(host)), "no tentative address")


# What the helper says


def test_helper_sees_what_ip_lists(hosts: TwoHosts, look: Look) -> None:
    """Family, address, interface, scope and state of each address, in one call."""
    hosts.client.ip("addr", "add", "10.2.0.7/24", "dev", "eth2", "preferred_lft", "0")
    hosts.client.ip("addr", "add", "10.4.0.1/32", "dev", "eth2", "scope", "link")
    hosts.client.ip("addr", "add", "fd00:2::8/64", "dev", "eth2", "nodad", "preferred_lft", "0")
    hosts.client.ip("link", "add", "third", "type", "dummy")
    hosts.client.ip("addr", "add", "10.3.0.1/24", "dev", "third")
    wait_for_detection(hosts.client)
    hosts.connect(hosts.listen())
    assert sorted(look.found()) == sorted(listed(hosts.client))
    assert look.number() == len(listed(hosts.client))
    assert look.flags("10.3.0.1") == 0
    assert look.flags("10.2.0.7") == look.flags("fd00:2::8") == UP | DEPRECATED


def test_helper_with_a_short_buffer(hosts: TwoHosts, look: Look) -> None:
    """It counts what does not fit; lengths that are not those of whole addresses are refused."""
    look.write("views", 0, struct.pack("=iI", 0, 1) + bytes(64 * _ADDRESS.size))
    hosts.connect(hosts.listen())
    assert look.number() == len(listed(hosts.client))
    assert len(look.found()) == 1
    figures = look.integers("figures")
    assert figures[LENGTH_3] == figures[LENGTH_0] == -errno.EINVAL


def test_helper_with_more_than_it_looks_at(hosts: TwoHosts, look: Look) -> None:
    """Its work is bounded: of 3,000 addresses it counts about a thousand, and the first are there."""
    batch = "".join(f"addr add 10.9.{n // 250}.{n % 250 + 1}/32 dev eth2\n" for n in range(3000))
    hosts.client.run("sh", "-c", f"printf '%s' '{batch}' | ip -batch -")
    hosts.connect(hosts.listen())
    assert 900 < look.number() <= 1024
    assert look.flags("10.1.0.1") == UP


# What changes


class Change(NamedTuple):
    """``host`` runs ``ip`` with these words; the flags of ``address`` are ``flags`` then."""

    command: str
    address: str
    flags: int | None
    before: tuple[str, ...] = ()
    host: str = "client"


DUMMY = (
    "link add dummy type dummy",
    "addr add 10.3.0.1/24 dev dummy",
    "addr add fd00:3::1/64 dev dummy nodad",
)
CHANGES = {
    "IPv4 address added": Change("addr add 10.2.0.5/24 dev eth2", "10.2.0.5", UP),
    "IPv6 address added": Change("addr add fd00:2::5/64 dev eth2 nodad", "fd00:2::5", UP),
    "IPv4 address removed": Change("addr del 10.2.0.1/24 dev eth2", "10.2.0.1", None),
    "IPv6 address removed": Change("addr del fd00:2::1/64 dev eth2", "fd00:2::1", None),
    "IPv6 address detected": Change("addr add fd00:2::5/64 dev eth2", "fd00:2::5", UP),
    "link down, IPv4": Change("link set eth2 down", "10.2.0.1", 0),
    "link down, IPv6": Change("link set eth2 down", "fd00:2::1", None),
    "link up, IPv4": Change("link set dummy up", "10.3.0.1", UP, DUMMY),
    "link up, IPv6": Change("link set dummy up", "fd00:3::1", UP, DUMMY),
    "carrier lost": Change("link set eth2 down", "10.2.0.1", 0, host="server"),
    "carrier lost, IPv6": Change("link set eth2 down", "fd00:2::1", 0, host="server"),
    "carrier back": Change("link set eth2 up", "10.2.0.1", UP, ("link set eth2 down",), host="server"),
    "link removed": Change("link del eth2", "10.2.0.1", None),
}


@pytest.mark.parametrize("what", CHANGES)
def test_change_is_told(hosts: TwoHosts, look: Look, what: str) -> None:
    """The owner is called, and sees the new state."""
    change = CHANGES[what]
    host = hosts.client if change.host == "client" else hosts.server
    for command in change.before:
        host.ip(*command.split())
    hosts.connect(hosts.listen())
    wait_for(lambda: look.flags(change.address) != change.flags, "the state before")
    before = look.calls()
    host.ip(*change.command.split())
    wait_equal(lambda: look.flags(change.address), change.flags)
    assert look.calls() > before


def test_renamed_interface(hosts: TwoHosts, look: Look) -> None:
    """Its index stays, so nothing changes."""
    hosts.connect(hosts.listen())
    hosts.client.ip("link", "set", "eth2", "down")
    hosts.client.ip("link", "set", "eth2", "name", "second")
    hosts.client.ip("link", "set", "second", "up")
    wait_equal(lambda: look.flags("10.2.0.1"), UP)
    assert sorted(a for a in look.found() if a.ip == "10.2.0.1") == sorted(
        a for a in listed(hosts.client) if a.ip == "10.2.0.1"
    )


def test_tentative_address(hosts: TwoHosts, look: Look) -> None:
    """It is seen as tentative first, and the end of duplicate address detection is told."""
    hosts.connect(hosts.listen())
    seen: list[int | None] = []

    def look_again() -> int | None:
        seen.append(look.flags("fd00:2::5"))
        return seen[-1]

    hosts.client.ip("addr", "add", "fd00:2::5/64", "dev", "eth2")
    wait_equal(look_again, UP)
    assert UP | TENTATIVE in seen


# Who is told


def test_only_sessions_of_the_namespace(hosts: TwoHosts, look: Look, server: Recorder) -> None:
    """The peer's namespace has changed nothing, and nobody is called there."""
    wait_equal(lambda: hosts.server.ip("-6", "addr", "show", "tentative"), "")  # its end would be a change
    hosts.connect(hosts.listen())
    hosts.client.ip("addr", "add", "10.2.0.5/24", "dev", "eth2")
    wait_equal(lambda: look.flags("10.2.0.5"), UP)
    assert not server.count(Op.ADDRESS_CHANGED)


def test_change_without_a_session(hosts: TwoHosts, look: Look) -> None:
    """Nobody is called; the next session's program sees the change, and is called if it asks for it."""
    listener = hosts.listen()
    for end in hosts.connect(listener):
        end.close()
    wait_for(lambda: not hosts.client.subflows(), "no session")
    hosts.client.ip("addr", "add", "10.2.0.5/24", "dev", "eth2")
    hosts.connect(listener)
    assert look.flags("10.2.0.5") == UP
    assert look.calls() <= 1, "that of the session before, if it had not ended"
    before = look.calls()
    look.reply(REPLY_ESTABLISHED)
    hosts.connect(listener)
    wait_equal(lambda: look.calls() - before, 2)


def test_called_again(hosts: TwoHosts, look: Look) -> None:
    """A reply to ADDRESS_CHANGED brings another, though nothing has changed."""
    wait_for_detection(hosts.client)
    hosts.connect(hosts.listen())
    look.reply(REPLY_CHANGED)
    hosts.client.ip("addr", "add", "10.2.0.5/24", "dev", "eth2")
    wait_equal(look.calls, 2)


@pytest.mark.usefixtures("carriers")
def test_session_whose_subflows_are_gone(hosts: TwoHosts, client: Recorder) -> None:
    """Its owner is called with the first socket; a subflow that it opens there saves the session."""
    hosts.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    wait_for_detection(hosts.client)
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    (flow,) = hosts.client.subflows()
    (token,) = (event.tokens[0] for event in client.events(Op.NEW_SESSION))
    end_subflow(hosts.client, token, flow)
    wait_equal(lambda: len(hosts.client.subflows()), 0)
    client.act(0, Op.ADDRESS_CHANGED, "open", address("10.2.0.5"), address("10.2.0.2"))
    hosts.client.ip("addr", "add", "10.2.0.5/24", "dev", "eth2")
    wait_equal(lambda: [(f.local, f.remote) for f in hosts.client.subflows()], [("10.2.0.5", "10.2.0.2")])
    exchange(*ends, b"y" * 5000)
    assert client.events(Op.ADDRESS_CHANGED)[0].results[0] == 0


def test_session_that_ended(hosts: TwoHosts, client: Recorder) -> None:
    """After CLOSE_SESSION there is no call, though the socket still waits for the peer."""
    ends = hosts.connect(hosts.listen())
    ends[0].close()
    wait_equal(lambda: client.count(Op.CLOSE_SESSION), 1)
    hosts.connect(hosts.listen("10.1.0.2", 5001))
    hosts.client.ip("addr", "add", "10.2.0.5/24", "dev", "eth2")
    wait_for(lambda: client.count(Op.ADDRESS_CHANGED), "a call")
    token = client.events(Op.NEW_SESSION)[0].tokens[0]
    assert token not in {e.tokens[0] for e in client.events(Op.ADDRESS_CHANGED)}


# Many sessions, many changes


@contextlib.contextmanager
def open_files(number: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], number), max(before[1], number)))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def claimed(hosts: TwoHosts, number: int) -> list[socket.socket]:
    """So many sessions that the client's program claimed, and perhaps connections that are plain TCP."""
    listeners = [hosts.listen("10.1.0.2", 5000 + n) for n in range(1 + number // 5000)]
    ends = []
    with hosts.client.inside():
        while hosts.client.counter("BPFClaimed") < number:
            for n in range(100):
                listener = listeners[n % len(listeners)]
                sock = hosts.keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262))
                sock.connect(("10.1.0.2", listener.getsockname()[1]))
                ends += [sock, hosts.keep(listener.accept()[0])]
    return ends


def room_for_sessions() -> int:
    """How many sessions the kernel's table of tokens has room for with both ends: 5,000 with 4 GB."""
    found = re.search(r"MPTCP token hash table entries: (\d+)", "\n".join(kernel_log()))
    assert found
    return 5 * int(found[1]) // 4


def test_very_many_sessions(hosts: TwoHosts, look: Look) -> None:
    """Each of 5,000 sessions (10,000 with ``kernel/run --mem 12G``) is told of a change once."""
    number = min(10_000, room_for_sessions())
    wait_for_detection(hosts.client)
    with open_files(5 * number):
        claimed(hosts, number)
        hosts.client.ip("addr", "add", "10.2.0.5/24", "dev", "eth2")
        wait_for(lambda: len(look.table("told")) >= number, "all told", deadline_s=60)
        assert set(look.table("calls").values()) == {1}


def storm(host: Host, *, seconds: float = STORM_S, rate: int = STORM_RATE) -> int:
    """Addresses come and go; how many changes there were."""
    end, changes = time.monotonic() + seconds * PATIENCE, 0
    batch = "addr add 10.2.0.5/24 dev eth2\naddr del 10.2.0.5/24 dev eth2\n" * (rate // 20)
    while time.monotonic() < end:
        host.run("sh", "-c", f"printf '%s' '{batch}' | ip -batch -")
        changes += rate // 10
        time.sleep(0.02)
    return changes


def test_storm_of_changes(hosts: TwoHosts, look: Look) -> None:
    """200 changes a second: there are fewer walks than changes, and every session sees the last state."""
    with open_files(5 * MANY):
        claimed(hosts, MANY)
        changes = storm(hosts.client)
        hosts.client.ip("addr", "add", "10.2.0.6/24", "dev", "eth2")
        wait_for(
            lambda: len(set(look.table("told").values())) == 1 and look.flags("10.2.0.6") == UP,
            "all told of the last state",
        )
        assert len(look.table("told")) >= MANY
        assert max(look.table("calls").values()) < changes


@pytest.mark.parametrize("how", ["close", "detach", "disconnect"])
def test_sessions_end_during_walks(hosts: TwoHosts, look: Look, how: str) -> None:
    """Sessions are closed, disconnected or lose their owner while they are told: nothing is left."""
    with open_files(5 * MANY):
        ends = claimed(hosts, MANY)
        thread = threading.Thread(target=storm, args=(hosts.client,), kwargs={"seconds": 1})
        thread.start()
        wait_for(look.calls, "a call")
        if how == "detach":
            look.detach()
            calls = look.calls()
        for end in ends:
            if how == "disconnect":
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            end.close()
        thread.join()
        wait_for(lambda: not hosts.client.subflows(), "no subflow")
        if how == "detach":
            assert look.calls() == calls


def test_namespace_removed_during_walks(loaded: Look) -> None:
    """Names, links and sockets of a namespace go while its sessions are told, again and again."""
    for _ in range(5):
        with open_files(5 * MANY), TwoHosts() as hosts:
            loaded.reset()
            loaded.attach(hosts.client.cgroup)
            claimed(hosts, MANY // 2)
            storm(hosts.client, seconds=0.1)
            hosts.client.ip("link", "del", "eth2")
            wait_for(loaded.calls, "a call")
    loaded.reset()
