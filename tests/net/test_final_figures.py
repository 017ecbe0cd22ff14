# SPDX-License-Identifier: Apache-2.0
"""What classifiers report when sockets are closed, on real cgroups and connections.

Everything runs in one network namespace, over its loopback; client and server are told apart by cgroups.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from pm.kernel import FinalFigures
from pm.linux.bpf.classifier_maps import Classifier
from pm.linux.bpf.objects import SOURCES, BpfObject, compile_object
from pm.linux.host.cgroups import directory_of, find_cgroup_root
from tests.lab.commands import run
from tests.lab.lab import Lab
from tests.lab.netns import inside
from tests.lab.sock_ops import SockOpsProgram

DEADLINE_S = 10.0
PAYLOAD = 100_000
# A connection of one process with itself: what it carries, and then the ends it had.
EXCHANGE = """
import socket, sys
protocol, host, sessions, size = (*map(int, sys.argv[1:2]), sys.argv[2], *map(int, sys.argv[3:]))
family = socket.AF_INET6 if ":" in host else socket.AF_INET
listener = socket.socket(family, socket.SOCK_STREAM, protocol)
listener.bind((host, 0))
listener.listen(1000)
for _ in range(sessions):
    client = socket.socket(family, socket.SOCK_STREAM, protocol)
    client.connect(listener.getsockname())
    server, _ = listener.accept()
    client.sendall(b"x" * size)
    left = size
    while left:
        left -= len(server.recv(left))
    server.send(b"y" * 10)
    assert client.recv(10, socket.MSG_WAITALL) == b"y" * 10
    print(client.getsockname()[1], listener.getsockname()[1], flush=True)
    sys.stdin.readline()
    client.close()
    while server.recv(1):
        pass
    server.close()
"""
TCP, MPTCP = 6, 262


@pytest.fixture
def bare(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab(client=1, server=1)


@asynccontextmanager
async def classifier(
    lab: Lab,
    *cgroups: str,
    change: Callable[[BpfObject], BpfObject] = lambda program: program,
    bpffs: Path | None = None,
    keep: bool = False,
) -> AsyncIterator[Classifier]:
    """A classifier on cgroups of the lab, each with a policy of its own."""
    log = lab.directory / "libbpf.log"
    program = change(await compile_object(SOURCES / "classify.c", log_file=log))
    found = Classifier.open(program, bpffs=bpffs, log_file=log)
    try:
        for cgroup in cgroups:
            lab.cgroup(cgroup)
            directory = directory_of(find_cgroup_root(), lab.cgroup_path(cgroup))
            found.attach(directory, lab.cgroup_id(cgroup), cgroup)
        yield found
    finally:
        found.close(keep=keep)


def in_client(lab: Lab, scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario with the network namespace ``client`` as its own."""

    async def main() -> None:
        await scenario()

    inside(lab.netns("client"), lambda: asyncio.run(main()))


def begin(
    lab: Lab, cgroup: str, *, protocol: int = MPTCP, host: str = "127.0.0.1", sessions: int = 1, size: int = 1
) -> Popen[str]:
    """``EXCHANGE``: it prints the ports of a connection, and closes it when it gets a line."""
    command = [sys.executable, "-c", EXCHANGE, str(protocol), host, str(sessions), str(size)]
    process: Popen[str] = lab.popen(command, cgroup=cgroup, stdin=PIPE, stdout=PIPE, text=True)
    return process


def finish(process: Popen[str], sessions: int = 1) -> None:
    process.communicate("\n" * sessions, timeout=60)
    assert process.returncode == 0


def ports(process: Popen[str]) -> tuple[int, int]:
    assert process.stdout
    client, server = map(int, process.stdout.readline().split())
    return client, server


async def read(found: Classifier, count: int) -> list[FinalFigures]:
    """All that is reported: ``count`` records, and then nothing more."""
    records: list[FinalFigures] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(records) < count:  # what fills the ring buffer is the kernel
            records += found.read_finals(3)
            await asyncio.sleep(0.01)
    return [*records, *found.read_finals(100)]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_each_end_of_a_subflow_is_reported_once(bare: Lab, host: str) -> None:
    """Where cgroups with policies are nested too; with all bytes that it carried, SYN and FIN as one each."""

    async def scenario() -> None:
        async with classifier(bare, "outer", "outer/inner") as found:
            process = begin(bare, "outer/inner", host=host, size=PAYLOAD)
            client, server = ports(process)
            assert found.read_finals(100) == []
            finish(process)
            records = {r.local_port: r for r in await read(found, 2)}
            assert records.keys() == {client, server}
            assert {(r.local, r.remote) for r in records.values()} == {(host, host)}
            ours, theirs = records[client].figures, records[server].figures
            assert PAYLOAD <= ours.bytes_acked <= PAYLOAD + 2
            assert PAYLOAD <= theirs.bytes_received <= PAYLOAD + 1
            assert 10 <= ours.bytes_received <= 11
            assert 10 <= theirs.bytes_acked <= 11
            assert ours.rtt_us > 0

    in_client(bare, scenario)


def test_joins_are_reported(bare: Lab) -> None:
    """Of both ends, with the bytes of each: together they have the session's."""
    for side in range(2, 4):
        bare.ip("client", "mptcp", "endpoint", "add", f"127.0.0.{side}", "dev", "lo", "subflow")

    async def scenario() -> None:
        async with classifier(bare, "here") as found:
            process = begin(bare, "here", size=PAYLOAD)
            _, server = ports(process)
            async with asyncio.timeout(DEADLINE_S):
                while [len(flows) for flows in bare.subflows("client").values()] != [3, 3]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            finish(process)
            records = await read(found, 6)
            assert len(records) == 6
            ours = {r.local: r.figures for r in records if r.remote_port == server}
            theirs = {r.remote: r.figures for r in records if r.local_port == server}
            assert ours.keys() == theirs.keys() == {"127.0.0.1", "127.0.0.2", "127.0.0.3"}
            for ip, figures in ours.items():
                # Each end counts its SYN and FIN as acknowledged, and a FIN that came in order.
                assert abs(figures.bytes_acked - theirs[ip].bytes_received) <= 2, ip
                assert abs(figures.bytes_received - theirs[ip].bytes_acked) <= 2, ip
            assert sum(f.bytes_received for f in theirs.values()) >= PAYLOAD

    in_client(bare, scenario)


@pytest.mark.parametrize("protocol", [TCP, MPTCP])
def test_plain_tcp_is_left_as_it_was(bare: Lab, protocol: int) -> None:
    """No callback more than without us; and on MPTCP, the flags of another program stay."""

    theirs = SockOpsProgram("closing")

    async def scenario() -> None:
        bare.cgroup("here")
        theirs.attach(bare.cgroup_root / bare.cgroup_path("here").removeprefix("/"))
        async with classifier(bare, "here") as found:
            process = begin(bare, "here", protocol=protocol, size=PAYLOAD)
            ports(process)
            finish(process)
            mptcp = protocol == MPTCP
            assert len(await read(found, 2 if mptcp else 0)) == (2 if mptcp else 0)
            rtt, closed, with_their_flag = theirs.integers("seen")
            assert rtt > 0
            assert (closed, with_their_flag) == ((2, 2) if mptcp else (0, 0))
        theirs.detach()

    in_client(bare, scenario)


def test_what_the_ring_buffer_has_no_room_for_is_counted(bare: Lab) -> None:
    """Nobody reads: the first are kept, the others counted, and all is well again once somebody reads."""
    sessions = 50

    def small(program: BpfObject) -> BpfObject:
        number, spec = program.maps["finals"]
        return program._replace(maps={**program.maps, "finals": (number, spec._replace(max_entries=4096))})

    async def scenario() -> None:
        async with classifier(bare, "here", change=small) as found:
            finish(begin(bare, "here", sessions=sessions), sessions)
            async with asyncio.timeout(DEADLINE_S):
                while (lost := found.counters()["finals_lost"]) < 1:  # noqa: ASYNC110 the kernel's
                    await asyncio.sleep(0.01)
            kept = list(drain(found))
            assert len(kept) + lost == 2 * sessions
            finish(begin(bare, "here"))
            assert len(await read(found, 2)) == 2

    in_client(bare, scenario)


def drain(found: Classifier) -> Iterator[FinalFigures]:
    while records := found.read_finals(7):
        assert len(records) <= 7
        yield from records


def test_a_service_that_takes_over_reads_what_waits(bare: Lab, tmp_path: Path) -> None:
    """What is reported while no service runs is kept, as far as there is room."""
    mount = tmp_path / "bpffs"
    mount.mkdir()
    run("mount", "-t", "bpf", "bpf", str(mount))

    async def scenario() -> None:
        async with classifier(bare, "here", bpffs=mount, keep=True):
            process = begin(bare, "here")
            ends = ports(process)
        finish(process)
        async with classifier(bare, bpffs=mount) as found:
            assert sorted(r.local_port for r in await read(found, 2)) == sorted(ends)

    try:
        in_client(bare, scenario)
    finally:
        run("umount", str(mount))
