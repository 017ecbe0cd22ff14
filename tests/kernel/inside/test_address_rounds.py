# SPDX-License-Identifier: Apache-2.0
"""ADDRESS_CHANGED and the neighbours: a program or an application that misbehaves costs the others little."""

from __future__ import annotations

import ctypes
import mmap
import platform
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.lab.capture import Capture, Segment
from tests.lab.forge import build, raw_socket, send
from tests.lab.middlebox import middlebox
from tests.lab.oracle import read_subflows
from tests.lab.page_fault import PageFault
from tests.lab.path_manager_programs import accept_joins, netlink
from tests.lab.recorder import Op, Recorder, address
from tests.lab.sock_ops import SockOpsProgram
from tests.lab.two_hosts import CGROUPS, Host, Socket, TwoHosts, exchange
from tests.lab.waiting import wait_equal, wait_for

TCP_ZEROCOPY_RECEIVE = 35  # linux/tcp.h
BURST = 32  # walks that replies ask for, at once; one per second follows
CALLS, REPLY_CHANGED, ADDRESSES = 0, 3, 0x4D500003  # of programs/look.c
SECONDS = 5
PACKETS = 200
MOST_IDS = 8  # of one RM_ADDR, MPTCP_RM_IDS_MAX
RM_ADDR = bytes((30, 3 + MOST_IDS, 4 << 4))  # RFC 8684, 3.4.2; the ids follow


@pytest.fixture
def look(hosts: TwoHosts) -> Iterator[SockOpsProgram]:
    """It owns the client's sessions."""
    program = SockOpsProgram("look")
    program.attach(hosts.client.cgroup)
    yield program
    program.detach()


@contextmanager
def insistent_neighbour(hosts: TwoHosts, listener: Socket) -> Iterator[SockOpsProgram]:
    """A session of another cgroup, whose owner always asks again."""
    cgroup, home = CGROUPS / "other", hosts.client.cgroup
    cgroup.mkdir()
    program = SockOpsProgram("insistent")
    program.attach(cgroup)
    hosts.client.cgroup = cgroup
    ends = hosts.connect(listener)
    hosts.client.cgroup = home
    try:
        yield program
    finally:
        for end in ends:
            end.close()
        program.detach()
        cgroup.rmdir()


def add_address(host: Host, number: int) -> None:
    host.ip("addr", "add", f"10.2.0.{number}/24", "dev", "eth2")


def generations(look: SockOpsProgram) -> list[int]:
    """The state of the addresses at which each session was called last."""
    return list(look.table("told").values())


def change(host: Host, number: int, look: SockOpsProgram) -> None:
    """An address comes, and the call of a session tells of it."""
    seen = set(generations(look))
    add_address(host, number)
    wait_for(lambda: set(generations(look)) - seen, "a call")


def send_often(raw: Socket, packet: bytes) -> None:
    for _ in range(PACKETS):
        send(raw, packet)


def send_without_waiting(sock: Socket) -> bool:
    """Whether the socket had room for more; it can have some again when the peer has acknowledged."""
    try:
        sock.send(b"z" * 100_000)
    except BlockingIOError:
        time.sleep(0.05)
        with suppress(BlockingIOError):
            return bool(sock.send(b"z"))
        return False
    return True


def receive_zerocopy(sock: Socket, memory: mmap.mmap) -> None:
    """TCP_ZEROCOPY_RECEIVE that copies to this memory: TCP locks the socket meanwhile."""
    target = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    request = struct.pack("=QIIIiQiI", 0, 0, 0, 0, 0, target, 1 << 30, 0)
    buffer = ctypes.create_string_buffer(request, len(request))
    length = ctypes.c_uint32(len(request))
    ctypes.CDLL(None).getsockopt(
        sock.fileno(), socket.IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, buffer, ctypes.byref(length)
    )


def test_program_that_always_asks_again(hosts: TwoHosts, look: SockOpsProgram) -> None:
    """Others' sessions are called some times at once, then once per second; changes are not held up."""
    listener = hosts.listen()
    hosts.connect(listener)
    add_address(hosts.client, 10)
    wait_for(lambda: look.integers("figures")[CALLS], "a call")
    with insistent_neighbour(hosts, listener) as insistent:
        wait_for(lambda: insistent.integers("calls")[0] > BURST, "the burst")
        before = look.integers("figures")[CALLS]
        time.sleep(3)
        calls = look.integers("figures")[CALLS] - before
        assert 1 <= calls <= 5

        began = time.monotonic()
        wait_for(lambda: look.integers("figures")[CALLS] >= before + calls + 3, "three more")
        pace = (time.monotonic() - began) / 3
        began = time.monotonic()
        for number in range(11, 21):
            change(hosts.client, number, look)
        assert time.monotonic() - began < 10 * pace / 2


def wait_calls(look: SockOpsProgram, number: int) -> None:
    """So many calls have come, the last at once."""
    wait_for(lambda: look.integers("figures")[CALLS] >= number, f"{number} calls", deadline_s=0.5)


def test_program_that_asks_during_changes(hosts: TwoHosts, look: SockOpsProgram) -> None:
    """Rounds that changes start are no debt of those who ask: some seconds later these are served at once."""
    listener = hosts.listen()
    hosts.connect(listener)
    with insistent_neighbour(hosts, listener) as insistent:
        while insistent.integers("calls")[0] < 4 * BURST:
            add_address(hosts.client, 9)
            hosts.client.ip("addr", "del", "10.2.0.9/24", "dev", "eth2")
    time.sleep(SECONDS)
    for number in range(10, 10 + SECONDS - 1):
        calls = look.integers("figures")[CALLS]
        look.write("figures", REPLY_CHANGED, ADDRESSES.to_bytes(4, "little"))
        add_address(hosts.client, number)
        wait_calls(look, calls + 2)


def test_application_that_sleeps_with_the_lock(hosts: TwoHosts, look: SockOpsProgram) -> None:
    """Its session is told when it wakes up; the others, and later changes, do not wait for it."""
    listener = hosts.listen()
    slow, _ = hosts.connect(listener)
    hosts.connect(listener)
    add_address(hosts.client, 10)
    wait_equal(lambda: len(generations(look)), 2)
    wait_equal(lambda: len(set(generations(look))), 1)
    (old,) = set(generations(look))

    with PageFault() as fault:
        thread = threading.Thread(target=slow.send, args=(fault.memory,))
        thread.start()
        wait_for(fault.waits, "a send() that sleeps")
        for number in range(11, 16):
            change(hosts.client, number, look)
        assert old in generations(look)
        fault.end()
        thread.join()
    wait_equal(lambda: len(set(generations(look))), 1)
    assert set(generations(look)) != {old}


@pytest.mark.skipif(
    int(platform.release().split(".")[0]) >= 7,
    reason="MPTCP of Linux 7 takes all data from the subflow at once: none is left to sleep with",
)
def test_application_that_sleeps_after_a_fallback(hosts: TwoHosts, look: SockOpsProgram) -> None:
    """It has its only subflow alone, and keeps nobody waiting."""
    listener = hosts.listen("0.0.0.0")
    hosts.connect(listener)
    with middlebox(hosts):
        sock, peer = hosts.connect(listener, "10.3.0.2")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2000)
        peer.setblocking(False)
        while send_without_waiting(peer):
            pass
        with PageFault() as fault:
            thread = threading.Thread(target=receive_zerocopy, args=(sock, fault.memory))
            thread.start()
            wait_for(fault.waits, "a getsockopt() that sleeps")
            for number in range(9, 14):
                change(hosts.client, number, look)
            fault.end()
            thread.join()


def test_call_that_comes_late_is_the_owners(hosts: TwoHosts, client: Recorder) -> None:
    """Told by the application that releases the session, a program can ask for what it likes."""
    hosts.server.mptcp("limits", "set", "subflows", "8")
    slow, peer = hosts.connect(hosts.listen("0.0.0.0"))
    with PageFault() as fault:
        thread = threading.Thread(target=slow.send, args=(fault.memory,))
        thread.start()
        wait_for(fault.waits, "a send() that sleeps")
        client.act(0, Op.ADDRESS_CHANGED, "open", address("10.2.0.9"), address("10.2.0.2"))
        add_address(hosts.client, 9)
        fault.end()
        thread.join()
    assert len(peer.recv(1 << 16)) > 0
    wait_for(lambda: [f for f in hosts.client.subflows() if f.local == "10.2.0.9"], "the subflow")
    (result,) = {e.results[0] for e in client.events(Op.ADDRESS_CHANGED) if e.results[0] != 1}
    assert result == 0


def test_callbacks_of_a_session_come_one_after_the_other(hosts: TwoHosts) -> None:
    """Two subflows have RM_ADDRs at the same time: no callback runs while another of the session does.

    One processor shows nothing here: this is for ``kernel/run-smp``.
    """
    together = SockOpsProgram("together")
    together.attach(hosts.client.cgroup)
    accept_joins(hosts)
    ends = hosts.connect(hosts.listen("0.0.0.0"))
    (token,) = read_subflows("client")
    with netlink(hosts.client) as genl:
        genl.create_subflow(token, genl.prepare_subflow("10.2.0.1", 9, "10.2.0.2", 5000, backup=False))
    wait_equal(lambda: len(hosts.server.subflows()), 2)
    with ExitStack() as stack:
        links = [(f"10.{n}.0.2", stack.enter_context(Capture("server", f"eth{n}"))) for n in (1, 2)]

        def sent() -> list[list[Segment]]:
            """What the server has sent on each subflow, after more of it."""
            exchange(*ends, b"y" * 50_000)
            return [[s for s in capture.segments() if s.source == (ip, 5000)] for ip, capture in links]

        attacks = []
        for segments in wait_for(sent, "data on both subflows", until=all):
            last = max(segments, key=lambda s: s.sequence + s.payload)
            where = last.source, last.destination, last.sequence + last.payload, last.acknowledgement
            packet = build(*where, options=RM_ADDR + bytes(range(100, 100 + MOST_IDS)))
            raw = stack.enter_context(raw_socket("server", last.source[0]))
            attacks.append(threading.Thread(target=send_often, args=(raw, packet)))
        before = together.integers("seen")[0]
        for thread in attacks:
            thread.start()
        for thread in attacks:
            thread.join()
    callbacks, interrupted = together.integers("seen")
    assert callbacks - before >= 2 * PACKETS * MOST_IDS
    assert not interrupted
    together.detach()


def test_sessions_of_an_application_that_sleeps_are_closed(hosts: TwoHosts, look: SockOpsProgram) -> None:
    """Disconnected and closed as soon as it wakes up: the call that waited has no session any more."""
    slow, peer = hosts.connect(hosts.listen())
    with PageFault() as fault:
        thread = threading.Thread(target=slow.send, args=(fault.memory,))
        thread.start()
        wait_for(fault.waits, "a send() that sleeps")
        add_address(hosts.client, 9)
        closing = threading.Thread(target=slow.close)
        closing.start()
        fault.end()
        thread.join()
        closing.join()
    peer.close()
    wait_for(lambda: not hosts.client.subflows(), "no subflow")
    other = hosts.connect(hosts.listen("10.1.0.2", 5001))
    add_address(hosts.client, 10)
    wait_for(lambda: look.integers("figures")[CALLS], "a call")
    exchange(*other)


@pytest.mark.parametrize("how", ["detached", "replaced"])
def test_owner_that_goes_while_a_call_waits(hosts: TwoHosts, client: Recorder, how: str) -> None:
    """The call is the owner's of that time: a replaced program's successor has it, a detached one none."""
    other = SockOpsProgram("look")
    slow, _ = hosts.connect(hosts.listen())
    with PageFault() as fault:
        thread = threading.Thread(target=slow.send, args=(fault.memory,))
        thread.start()
        wait_for(fault.waits, "a send() that sleeps")
        before = len(client.events(Op.ADDRESS_CHANGED))
        add_address(hosts.client, 9)
        if how == "replaced":
            client.replace(hosts.client.cgroup, other)
        else:
            client.detach()
        fault.end()
        thread.join()
    if how == "replaced":
        wait_for(lambda: other.integers("figures")[CALLS], "the call of the new program")
    assert len(client.events(Op.ADDRESS_CHANGED)) == before


def test_many_applications_that_sleep(hosts: TwoHosts, look: SockOpsProgram) -> None:
    """Addresses come and go meanwhile; each session is called once when its application wakes up."""
    wait_for(lambda: "tentative" not in hosts.client.ip("addr"), "the end of duplicate address detection")
    listener = hosts.listen()
    ends = [hosts.connect(listener)[0] for _ in range(20)]
    with ExitStack() as stack:
        faults = [stack.enter_context(PageFault()) for _ in ends]
        threads = [
            threading.Thread(target=end.send, args=(fault.memory,))
            for end, fault in zip(ends, faults, strict=True)
        ]
        for thread, fault in zip(threads, faults, strict=True):
            thread.start()
            wait_for(fault.waits, "a send() that sleeps")
        before = look.integers("figures")[CALLS]
        for _ in range(50):
            add_address(hosts.client, 9)
            hosts.client.ip("addr", "del", "10.2.0.9/24", "dev", "eth2")
        assert look.integers("figures")[CALLS] == before
        for thread, fault in zip(threads, faults, strict=True):
            fault.end()
            thread.join()
    wait_equal(lambda: look.integers("figures")[CALLS], before + len(ends))
    assert len(set(generations(look))) == 1
