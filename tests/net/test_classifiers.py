# SPDX-License-Identifier: Apache-2.0
"""Classifiers on real cgroups and real connections: who gets recorded, under which policy, and what stays.

Everything runs in one network namespace of its own, over its loopback; client and server are told
apart by their cgroups.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pm.errors import KernelRefused, PmError, SystemUnfit
from pm.linux.bpf import libbpf
from pm.linux.bpf.classifier_maps import Classifier
from pm.linux.bpf.layouts import SessionKey, SessionValue
from pm.linux.bpf.objects import SOURCES, compile_object
from pm.linux.host.cgroups import CgroupIds, directory_of, find_cgroup_root
from pm.linux.host.mounts import find_mount
from pm.linux.host.netns import netns_cookie
from pm.path_managers.choice import PathManagerChoice
from pm.policies.model import Policy
from pm.policies.policy_table import PolicyTable
from pm.programs.attach import MatchedCgroup, OnChange
from pm.programs.classifiers import Selection
from tests.lab.attached import sock_ops_programs
from tests.lab.commands import run
from tests.lab.lab import Lab
from tests.lab.netns import inside
from tests.lab.oracle import Flow

PORT = 5000
DEADLINE_S = 10.0
RETURN_1 = bytes.fromhex("b7000000010000009500000000000000")


@pytest.fixture
def bare(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab(client=1, server=1)


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """A bpffs of the test's own."""
    directory = tmp_path / "bpffs"
    directory.mkdir()
    run("mount", "-t", "bpf", "bpf", str(directory))
    yield directory
    run("umount", str(directory))


def policies(lab: Lab, **globs: str) -> PolicyTable:
    """Policies by name, each with a glob inside the lab's cgroup."""
    choice = PathManagerChoice("none", None)
    return PolicyTable(
        Policy(name=name, cgroup=lab.cgroup_path(glob), path_manager=choice) for name, glob in globs.items()
    )


def yes() -> bool:
    return True


def no() -> bool:
    return False


def ignore(*arguments: object) -> None:
    pass


async def ignore_cgroups(cgroups: Mapping[int, MatchedCgroup]) -> None:
    pass


@asynccontextmanager
async def selection(
    lab: Lab,
    table: PolicyTable,
    *,
    bpffs: Path | None = None,
    keep: Callable[[], bool] = no,
    on_change: OnChange = ignore,
) -> AsyncIterator[Selection]:
    """A selection with its classifiers attached; pinned in ``bpffs``, or where this machine has one."""
    async with Selection.open(
        log_file=lab.directory / "libbpf.log",
        keep=keep,
        on_change=on_change,
        on_cgroups=ignore_cgroups,
        cgroup_root=find_cgroup_root(),
        ids=CgroupIds(find_cgroup_root()),
        bpffs=bpffs or find_mount("bpf"),
    ) as chosen:
        await chosen.apply(table)
        yield chosen


def in_client(lab: Lab, scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario with the network namespace ``client`` as its own."""

    async def main() -> None:
        await scenario()

    inside(lab.netns("client"), lambda: asyncio.run(main()))


def flow_of(lab: Lab, end: str) -> Flow:
    """The only MPTCP subflow of an end, ``client`` or ``server``, both in the namespace ``client``."""
    flows = [f for flows in lab.subflows("client").values() for f in flows if f.state == "ESTAB"]
    (flow,) = [f for f in flows if (f.remote_port == PORT) == (end == "client")]
    return flow


def classified(chosen: Selection, flow: Flow) -> str | None:
    found = chosen.classify(flow.local, flow.local_port, flow.remote, flow.remote_port)
    return found.policy.name if found else None


def programs_on(path: str) -> int:
    """How many sock_ops programs are attached to a cgroup, anybody's."""
    return len(sock_ops_programs(directory_of(find_cgroup_root(), path)))


async def reached(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 the condition is the kernel's
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("host", "option"),
    [("127.0.0.1", []), ("::1", []), ("127.0.0.1", ["--dual-stack"])],
    ids=["ipv4", "ipv6", "v4-mapped"],
)
def test_innermost_policy_wins(bare: Lab, host: str, option: list[str]) -> None:
    """The nearest cgroup with a policy decides, on both ends; what was recorded is told once."""
    table = policies(bare, outer="outer", inner="outer/inner", other="other")
    bare.cgroup("outer/inner")
    bare.cgroup("other")

    async def scenario() -> None:
        async with selection(bare, table) as chosen:
            bare.server(ns="client", cgroup="other/server")
            inner = bare.client(host, *option, ns="client", cgroup="outer/inner/deep")
            inner.open()
            client, server = flow_of(bare, "client"), flow_of(bare, "server")
            assert [classified(chosen, f) for f in (client, server)] == ["inner", "other"]
            assert classified(chosen, client) is None
            inner.close()
            bare.client(host, *option, ns="client", cgroup="outer").open()
            assert classified(chosen, flow_of(bare, "client")) == "outer"
            assert chosen.counters() == {"classified": 4, "failed": 0, "finals_lost": 0}
        assert programs_on(bare.cgroup_path("outer")) == 0

    in_client(bare, scenario)


FALL_BACK = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
client.connect(listener.getsockname())
client.send(b"x")
assert listener.accept()[0].recv(1) == b"x"
"""


def test_only_mptcp_in_a_policy_in_this_namespace(bare: Lab) -> None:
    """Nothing is recorded of plain TCP, of fallbacks to it, of other cgroups and other network namespaces."""
    table = policies(bare, here="here")
    bare.cgroup("here")

    async def scenario() -> None:
        async with selection(bare, table) as chosen:
            bare.server(ns="client", cgroup="elsewhere")
            bare.client("127.0.0.1", "--tcp", ns="client", cgroup="here").open()
            bare.client("127.0.0.1", ns="client", cgroup="elsewhere").open()
            bare.server(ns="server", cgroup="here")
            bare.client("127.0.0.1", ns="server", cgroup="here").open()
            assert bare.popen([sys.executable, "-c", FALL_BACK], cgroup="here").wait() == 0
            assert chosen.counters() == {"classified": 0, "failed": 0, "finals_lost": 0}

    in_client(bare, scenario)


def test_joins_are_not_recorded(bare: Lab) -> None:
    """Only the initial subflow is written down, on both ends: nobody would ask for the others."""
    table = policies(bare, here="here")
    bare.cgroup("here")
    bare.ip("client", "mptcp", "endpoint", "add", "127.0.0.2", "dev", "lo", "subflow")

    async def scenario() -> None:
        async with selection(bare, table) as chosen:
            bare.server(ns="client", cgroup="here")
            bare.client("127.0.0.1", ns="client", cgroup="here").open()
            await reached(lambda: [len(flows) for flows in bare.subflows("client").values()] == [2, 2])
            assert chosen.counters() == {"classified": 2, "failed": 0, "finals_lost": 0}

    in_client(bare, scenario)


def test_entry_goes_with_its_socket(bare: Lab) -> None:
    """An entry that nobody took is gone when the connection closes: its ports may come again elsewhere."""
    table = policies(bare, here="here")
    bare.cgroup("here")

    async def scenario() -> None:
        async with selection(bare, table) as chosen:
            server = bare.server(ns="client", cgroup="here")
            client = bare.client("127.0.0.1", ns="client", cgroup="here")
            client.open()
            ends = flow_of(bare, "client"), flow_of(bare, "server")
            client.close()
            await reached(lambda: not bare.subflows("client"))
            assert [classified(chosen, f) for f in ends] == [None, None]
            assert chosen.counters()["classified"] == 2
            del server

    in_client(bare, scenario)


def test_cgroups_that_come_and_go(bare: Lab) -> None:
    """A cgroup made after the start is classified, one removed is forgotten; the callback hears of both."""
    table = policies(bare, late="**/late*")
    heard: list[tuple[str, str | None]] = []

    async def scenario() -> None:
        async with (
            selection(bare, table, on_change=lambda path, policy: heard.append((path, policy))) as chosen,
            asyncio.timeout(60),
        ):
            following = asyncio.create_task(chosen.run())
            path = bare.cgroup("a/b/late1")
            await reached(lambda: path in chosen.attached())
            bare.server(ns="client")
            client = bare.client("127.0.0.1", ns="client", cgroup="a/b/late1")
            client.open()
            assert classified(chosen, flow_of(bare, "client")) == "late"
            bare.remove_cgroup("a")
            await reached(lambda: not chosen.attached())
            following.cancel()
        assert heard == [(path, "late"), (path, None)]

    in_client(bare, scenario)


def test_reload_moves_a_cgroup(bare: Lab) -> None:
    """New policies replace the program on a cgroup in place; cgroups no policy matches lose theirs."""
    bare.cgroup("x")
    bare.cgroup("y")

    async def scenario() -> None:
        async with selection(bare, policies(bare, one="*")) as chosen:
            x, y = bare.cgroup_path("x"), bare.cgroup_path("y")
            assert chosen.attached() == {x: "one", y: "one"}
            many = {f"p{i}": f"none{i}" for i in range(40)}
            await chosen.apply(policies(bare, two="x", **many))
            assert chosen.attached() == {x: "two"}
            assert (programs_on(x), programs_on(y)) == (1, 0)
            bare.server(ns="client")
            bare.client("127.0.0.1", ns="client", cgroup="x").open()
            assert classified(chosen, flow_of(bare, "client")) == "two"

    in_client(bare, scenario)


def test_somebody_elses_program_stays(bare: Lab) -> None:
    """A program attached with BPF_F_ALLOW_MULTI stays beside ours and after us."""
    path = bare.cgroup("x")
    directory = os.open(directory_of(find_cgroup_root(), path), os.O_RDONLY)
    link = libbpf.link_cgroup(libbpf.load_sock_ops("foreign", RETURN_1), directory)

    async def scenario() -> None:
        async with selection(bare, policies(bare, x="x")):
            assert programs_on(path) == 2
        assert programs_on(path) == 1

    try:
        in_client(bare, scenario)
        assert sock_ops_programs(directory_of(find_cgroup_root(), path)) == (
            libbpf.link_info(link).program_id,
        )
    finally:
        os.close(link)
        os.close(directory)


def test_exclusive_program_is_reported(bare: Lab) -> None:
    """Where a program without BPF_F_ALLOW_MULTI lets in no other, that cgroup alone fails, and says so."""
    taken, free = bare.cgroup("taken"), bare.cgroup("free")
    directory = os.open(directory_of(find_cgroup_root(), taken), os.O_RDONLY)
    program = libbpf.load_sock_ops("exclusive", RETURN_1)
    attach = libbpf.library().bpf_prog_attach
    assert attach(program, directory, libbpf.ATTACH_CGROUP_SOCK_OPS, ctypes.c_uint(0)) == 0

    async def scenario() -> None:
        async with selection(bare, policies(bare, all="*")) as chosen:
            assert chosen.attached() == {free: "all"}
            assert chosen.failures[taken].errno_name == "EPERM"
            assert "BPF_F_ALLOW_MULTI" in str(chosen.failures[taken])

    try:
        in_client(bare, scenario)
        assert programs_on(taken) == 1
    finally:
        os.close(program)
        os.close(directory)


SERVICE = """
import asyncio, sys
from pathlib import Path
from pm.linux.host.cgroups import CgroupIds, find_cgroup_root
from pm.path_managers.choice import PathManagerChoice
from pm.policies.model import Policy
from pm.policies.policy_table import PolicyTable
from pm.programs.classifiers import Selection

async def ignore(cgroups):
    pass

async def main(glob, bpffs):
    policy = Policy(name="x", cgroup=glob, path_manager=PathManagerChoice("none", None))
    log_file = Path(bpffs).parent / "libbpf.log"
    async with Selection.open(
        log_file=log_file, keep=bool, on_change=print, on_cgroups=ignore,
        cgroup_root=find_cgroup_root(), ids=CgroupIds(find_cgroup_root()), bpffs=Path(bpffs),
    ) as selection:
        await selection.apply(PolicyTable([policy]))
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


def test_two_capabilities_are_enough(bare: Lab, bpffs: Path) -> None:
    """CAP_BPF and CAP_NET_ADMIN are all that compiling, loading, attaching and pinning need."""
    bare.cgroup("x")
    arguments = [sys.executable, "-c", SERVICE, bare.cgroup_path("x"), str(bpffs)]
    process = bare.popen(
        ["setpriv", "--bounding-set=-all,+bpf,+net_admin", *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert any("ready" in line for line in process.stdout)


def test_missing_capability_is_named(bare: Lab, tmp_path: Path) -> None:
    """Without CAP_BPF the error names the capabilities."""
    arguments = [sys.executable, "-c", SERVICE, bare.cgroup_path("x"), str(tmp_path / "none")]
    process = bare.popen(
        ["setpriv", "--bounding-set=-all,+net_admin", *arguments], stderr=subprocess.PIPE, text=True
    )
    last = process.communicate()[1].strip().splitlines()[-1]
    assert last.startswith("pm.errors.SystemUnfit")
    assert "CAP_BPF and CAP_NET_ADMIN" in last


def kill_a_service(lab: Lab, bpffs: Path, glob: str) -> None:
    """Start a selection in a process of its own and SIGKILL it once it has attached."""
    process = lab.popen(
        [sys.executable, "-c", SERVICE, lab.cgroup_path(glob), str(bpffs)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert any("ready" in line for line in process.stdout)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_next_start_takes_over_after_sigkill(bare: Lab, bpffs: Path) -> None:
    """Pinned classifiers go on after SIGKILL; the next start knows what they recorded, and replaces them."""
    x, gone, unwanted = bare.cgroup("x"), bare.cgroup("xgone"), bare.cgroup("xunwanted")
    kill_a_service(bare, bpffs, "x*")
    assert [programs_on(path) for path in (x, gone, unwanted)] == [1, 1, 1]
    bare.remove_cgroup("xgone")
    server = bare.server(ns="client")
    bare.client("127.0.0.1", ns="client", cgroup="x").open()
    flow = flow_of(bare, "client")

    async def scenario() -> None:
        pins = bpffs / "mptcp-pm" / str(netns_cookie())
        async with selection(bare, policies(bare, x="x"), bpffs=bpffs) as chosen:
            assert (programs_on(x), programs_on(unwanted)) == (1, 0)
            assert len(list(pins.glob("link-*"))) == 1
            assert classified(chosen, flow) == "x"
        assert programs_on(x) == 0
        assert not (bpffs / "mptcp-pm").exists()

    in_client(bare, scenario)
    del server


def test_keep_leaves_classifiers_for_the_next_start(bare: Lab, bpffs: Path) -> None:
    """With ``on_exit: keep`` programs and pins stay, and the next start has exactly one program again."""
    x = bare.cgroup("x")

    async def scenario() -> None:
        async with selection(bare, policies(bare, x="x"), bpffs=bpffs, keep=yes):
            pass
        assert programs_on(x) == 1
        async with selection(bare, policies(bare, y="*"), bpffs=bpffs) as chosen:
            assert chosen.attached() == {x: "y"}
            assert programs_on(x) == 1
        assert programs_on(x) == 0

    in_client(bare, scenario)


@pytest.mark.parametrize("key_size", [4, ctypes.sizeof(SessionKey)], ids=["other sizes", "other layout"])
def test_pinned_map_of_another_version_is_replaced(bare: Lab, bpffs: Path, key_size: int) -> None:
    """A map that another version left with another content is not used, and its pin makes room for ours."""
    x = bare.cgroup("x")

    async def scenario() -> None:
        pins = bpffs / "mptcp-pm" / str(netns_cookie())
        pins.mkdir(parents=True)
        ours = libbpf.MapSpec(9, ctypes.sizeof(SessionKey), ctypes.sizeof(SessionValue), 65536, 0)
        old = libbpf.create_map("sessions_0123ab", ours._replace(key_size=key_size))
        libbpf.pin(old, pins / "sessions")
        os.close(old)
        async with selection(bare, policies(bare, x="x"), bpffs=bpffs) as chosen:
            assert chosen.attached() == {x: "x"}
            pinned = libbpf.open_pin(pins / "sessions")
            name, spec = libbpf.describe_map(pinned)
            assert (name != "sessions_0123ab", spec) == (True, ours)
            os.close(pinned)

    in_client(bare, scenario)


def test_nothing_stays_after_sigkill_without_pins(bare: Lab, tmp_path: Path) -> None:
    """Where nothing can be pinned, links end with the process: no program stays behind."""
    x = bare.cgroup("x")
    directory = tmp_path / "no-bpffs"
    directory.write_text("")  # not a directory: pins are impossible here
    kill_a_service(bare, directory, "x")

    async def scenario() -> None:
        await reached(lambda: programs_on(x) == 0)

    in_client(bare, scenario)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A directory for BPF C, with our headers."""
    for name in ("include", "stub"):
        (tmp_path / name).symlink_to(SOURCES / name)
    return tmp_path


async def test_bad_c_is_one_error_with_a_log(sources: Path) -> None:
    """C that does not compile gives an error naming the file with the compiler's whole output."""
    source = sources / "bad.c"
    source.write_text("int classify(struct bpf_sock_ops *skops) { return nonsense; }\n")
    with pytest.raises(PmError, match=r"bad\.c does not compile.*log"):
        await compile_object(source, log_file=sources / "log")
    assert f"{source}:1:51: error: use of undeclared identifier 'nonsense'" in (sources / "log").read_text()


async def test_verifier_refusal_is_one_error_with_a_log(sources: Path) -> None:
    """A program that the verifier refuses gives an error naming the file with its log."""
    source = sources / "bad.c"
    source.write_text("int classify(struct bpf_sock_ops *skops) { return *(int *)((u64)skops->op << 3); }\n")
    program = await compile_object(source, log_file=sources / "log")
    with pytest.raises(PmError, match=r"verifier refused.*log"):
        program.load("classify", maps={}, constants={}, log_file=sources / "log")
    assert "invalid mem access" in (sources / "log").read_text()


async def test_missing_bcc_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the interpreter has no BCC, the error names the package, and what helps where it runs."""
    venv.create(tmp_path / "venv", symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv/bin/python"))
    with pytest.raises(
        SystemUnfit,
        match=r"python3-bpfcc .* not installed: (run `)?(apt install python3-bpfcc|use the image `full`)",
    ):
        await compile_object(SOURCES / "classify.c", log_file=tmp_path / "log")


def test_the_service_never_maps_llvm(bare: Lab) -> None:
    """A process that selects has libbpf in it, and neither BCC nor LLVM."""
    bare.cgroup("x")

    async def scenario() -> None:
        async with selection(bare, policies(bare, x="x")):
            maps = await asyncio.to_thread(Path("/proc/self/maps").read_text)
            assert "libbpf.so" in maps
            assert "LLVM" not in maps
            assert "libbcc" not in maps

    in_client(bare, scenario)


def test_vanished_cgroup_is_refused(bare: Lab) -> None:
    """Attaching to a cgroup that has just gone, or been made anew, is ENOENT."""
    bare.cgroup("new")
    log = bare.directory / "libbpf.log"

    async def scenario() -> None:
        program = await compile_object(SOURCES / "classify.c", log_file=log)
        classifier = Classifier.open(program, bpffs=None, log_file=log)
        for path in ("gone", "new"):
            with pytest.raises(KernelRefused, match="ENOENT"):
                classifier.attach(directory_of(find_cgroup_root(), bare.cgroup_path(path)), 1 << 60, "x")
        assert not classifier.attached
        classifier.close(keep=False)

    in_client(bare, scenario)
