# SPDX-License-Identifier: Apache-2.0
"""The test laboratory: network namespaces, cgroups and processes that vanish with the ``with`` block.

    client eth0 10.X.1.1 ──┐            ┌── 10.X.1.2 eth0 server
                        bridge 1   .254 │
                           └────────────┘  the namespace "net" routes between the links
    client eth1 10.X.2.1 ──┐            ┌── 10.X.2.2 eth1 server
                        bridge 2   .254 │
                           └────────────┘

Link i (from 1) is the networks 10.77.i.0/24 and fd00:77:i::/64. Either side may have fewer
interfaces than there are links; every client address reaches every server address, each
address by its own interface (source-based routing). Taking a link down takes the carrier
of one side's interface away, as pulling a cable does.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pm.linux.host.instance import namespace_file
from pm.model import family_of
from tests.lab import evidence
from tests.lab.commands import run
from tests.lab.netns import NAME, inside, read_sysctl, run_inside, write_sysctls
from tests.lab.oracle import Flow, read_subflows
from tests.lab.service import LIKE_THE_UNIT, ROOT, Config, Service, command, like_the_unit
from tests.lab.traffic import Traffic
from tests.lab.waiting import wait_equal, wait_for

Side = Literal["client", "server"]
HOST = {"client": 1, "server": 2}
GATEWAY = 254
_serial = itertools.count(1)

# Where services keep what the next one must know.
STATE_DIRECTORY = Path("/run/mptcp-pm")
SYSCTLS = {
    "net.mptcp.enabled": 1,
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv4.ip_forward": 0,
    "net.ipv4.ip_local_port_range": "10000 65000",
    # The default depends on the memory: a burst of joins must fit.
    "net.ipv4.tcp_max_syn_backlog": 8192,
    "net.ipv6.conf.all.disable_ipv6": 0,
    "net.ipv6.conf.default.disable_ipv6": 0,
    # No waiting for link-local addresses either.
    "net.ipv6.conf.default.accept_dad": 0,
    # An interface that loses its link keeps its IPv6 addresses, as it keeps its IPv4 ones.
    "net.ipv6.conf.all.keep_addr_on_down": 1,
    "net.ipv6.conf.default.keep_addr_on_down": 1,
}
ROUTER_SYSCTLS = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}


def cgroup2_root() -> Path:
    """Where cgroup2 is mounted (design: /sys/fs/cgroup, or below it in the hybrid layout)."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(target)
    raise AssertionError("cgroup2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")


class Lab:
    """``with Lab(client=2, server=2) as lab:``; everything it made is gone after the block, also on failure.

    ``client`` and ``server`` are numbers of interfaces. ``limit`` is the in-kernel path manager's
    number of extra subflows (at most 8) and accepted ADD_ADDRs, on both sides. Services share a mount
    namespace in which /sys/fs/bpf is a bpffs of the lab's own, or (``bpffs=False``) nothing is.
    """

    def __init__(self, client: int = 2, server: int = 2, limit: int = 8, bpffs: bool = True) -> None:
        self.interfaces: dict[Side, int] = {"client": client, "server": server}
        self.limit = limit
        self.bpffs = bpffs
        self.name = f"{NAME}-{next(_serial)}"
        self.cgroup_root = cgroup2_root()
        self.seen: dict[str, list[list[Flow]]] = {}
        self._logs: list[tuple[str, Path]] = []
        self._processes: list[subprocess.Popen[Any]] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Lab:
        with contextlib.ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{self.name}-")))
            for ns in ("net", "client", "server"):
                run("ip", "netns", "add", self.netns(ns))
                stack.callback(self._remove_netns, ns)
            self._cgroup_dir().mkdir()
            stack.callback(self._remove_cgroups)
            stack.callback(self._end_processes)
            self._connect()
            self._hold_mounts()
            self._stack = stack.pop_all()
        evidence.begin(self.look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            evidence.end(self.look, value)

    def look(self) -> list[evidence.Section]:
        """What a failed test shows: the log of each service, the sockets of client and server."""
        logs = [evidence.log(f"log of mptcp-pm in {ns}", path) for ns, path in self._logs]
        return logs + [evidence.sockets(self.netns(ns)) for ns in ("client", "server")]

    # Network

    def netns(self, ns: str) -> str:
        """Name of a namespace, as in /run/netns."""
        return f"{self.name}-{ns}"

    def address(self, side: Side, link: int, family: int = 4) -> str:
        """The address of ``side`` on ``link`` (from 1)."""
        return _address(link, HOST[side], family)

    def addresses(self, side: Side, family: int = 4) -> list[str]:
        return [self.address(side, i, family) for i in range(1, self.interfaces[side] + 1)]

    def ip(self, ns: str, *args: str) -> str:
        """``ip -n NAMESPACE ARGS``."""
        return run("ip", "-n", self.netns(ns), *args)

    def run(self, ns: str, *command: str) -> str:
        """Output of a command in a namespace; AssertionError with its errors where it fails."""
        return run_inside(self.netns(ns), *command)

    def sysctl(self, ns: str, **values: Any) -> None:
        """Set sysctls; ``__`` stands for the dot: ``net__mptcp__enabled=0``."""
        write_sysctls(self.netns(ns), {key.replace("__", "."): value for key, value in values.items()})

    def read_sysctl(self, ns: str, name: str) -> str:
        return read_sysctl(self.netns(ns), name)

    def set_link(self, side: Side, link: int, up: bool) -> None:
        """Plug or pull the cable: the interface of ``side`` keeps its addresses and loses its carrier."""
        self.ip("net", "link", "set", f"{side}{link}", "up" if up else "down")

    def add_address(self, side: Side, link: int, ip: str) -> None:
        """Add ``ip`` (no prefix length) to the interface on ``link``, with its source-based route."""
        self._batch(side, self._address_lines(link, ip), family_of(ip))

    def del_address(self, side: Side, link: int, ip: str) -> None:
        length = 64 if family_of(ip) == 6 else 24
        device, table = f"eth{link - 1}", 100 + link
        self._batch(
            side, [f"addr del {ip}/{length} dev {device}", f"rule del from {ip} table {table}"], family_of(ip)
        )

    def shape(self, link: int, mbit: float) -> None:
        """Limit ``link`` to ``mbit`` megabits per second in each direction (tbf)."""
        for side, count in self.interfaces.items():
            if link <= count:
                run(
                    "tc", "-n", self.netns("net"), "qdisc", "replace", "dev", f"{side}{link}", "root",
                    "tbf", "rate", f"{mbit}mbit", "burst", "64kb", "latency", "50ms",
                )  # fmt: skip

    def _connect(self) -> None:
        for ns in ("net", "client", "server"):
            write_sysctls(self.netns(ns), {**SYSCTLS, **(ROUTER_SYSCTLS if ns == "net" else {})})
        net = ["link set lo up"]
        for link in range(1, max(self.interfaces.values()) + 1):
            # No multicast snooping: neighbour discovery must not wait for a querier.
            net += [f"link add br{link} type bridge mcast_snooping 0", f"link set br{link} up"]
            net += [f"addr add {_prefix(link, GATEWAY, f)} dev br{link} {_flags(f)}" for f in (4, 6)]
        for side, count in self.interfaces.items():
            for link in range(1, count + 1):
                peer, port = f"eth{link - 1}", f"{side}{link}"
                net.append(f"link add {port} type veth peer name {peer} netns {self.netns(side)}")
                net.append(f"link set {port} master br{link} up")
        self._batch("net", net)
        for side, count in self.interfaces.items():
            for family in (4, 6):
                lines = ["link set lo up"]
                for link in range(1, count + 1):
                    lines.append(f"link set eth{link - 1} up")
                    lines += self._address_lines(link, self.address(side, link, family))
                # What is not bound to an address leaves by the first link.
                lines.append(f"route add default via {_address(1, GATEWAY, family)}")
                self._batch(side, lines, family)
            self.ip(
                side,
                "mptcp",
                "limits",
                "set",
                "subflow",
                str(self.limit),
                "add_addr_accepted",
                str(self.limit),
            )

    def _address_lines(self, link: int, ip: str) -> list[str]:
        family = family_of(ip)
        length, device, table = (64 if family == 6 else 24), f"eth{link - 1}", 100 + link
        network = f"{_address(link, 0, family)}/{length}"
        return [
            f"addr add {ip}/{length} dev {device} {_flags(family)}",
            f"route replace {network} dev {device} table {table}",
            f"route replace default via {_address(link, GATEWAY, family)} dev {device} table {table}",
            f"rule add from {ip} table {table}",
        ]

    def _batch(self, ns: str, lines: list[str], family: int | None = None) -> None:
        # Rules need the family, and ip takes it from the command line only.
        option = [f"-{family}"] if family else []
        run("ip", "-n", self.netns(ns), *option, "-batch", "-", input="\n".join(lines))

    def subflows(self, ns: str = "client") -> dict[int, list[Flow]]:
        """Subflows by local token as ``ss`` shows them: the kernel's truth. ``seen`` keeps the last look."""
        found = read_subflows(self.netns(ns))
        self.seen[ns] = list(found.values())
        return found

    def wait_subflows(
        self, count: int, sessions: int = 1, ns: str = "client", deadline_s: float = 10.0
    ) -> None:
        """Wait for ``sessions`` sessions with ``count`` established subflows each, and no other session."""
        wait_equal(lambda: self.established(ns), [count] * sessions, deadline_s=deadline_s)

    def established(self, ns: str = "client") -> list[int]:
        """How many established subflows each session has."""
        return [sum(f.state == "ESTAB" for f in flows) for flows in self.subflows(ns).values()]

    # Cgroups

    def cgroup(self, path: str) -> str:
        """Make the cgroup ``path`` (with its parents) in the lab's own; its path below the cgroup2 root."""
        self._cgroup_dir(path).mkdir(parents=True, exist_ok=True)
        return self.cgroup_path(path)

    def cgroup_path(self, path: str = "") -> str:
        """``/mptcp-pm-test-PID-N/path``, as configurations and the API name it; nothing is made."""
        return f"/{self.name}/{path}".rstrip("/")

    def cgroup_id(self, path: str) -> int:
        """The id of the cgroup ``path``, as the kernel has it."""
        return self._cgroup_dir(path).stat().st_ino

    def remove_cgroup(self, path: str) -> None:
        """Kill what runs in the cgroup ``path`` and remove it with its children."""
        top = self._cgroup_dir(path)
        (top / "cgroup.kill").write_text("1")
        for directory, _, _ in os.walk(top, topdown=False):
            # A killed process leaves its cgroup a moment later.
            wait_for(partial(_rmdir, directory), f"{directory} is removed")

    def abandon_cgroup(self, path: str) -> None:
        """Move what runs in the cgroup ``path`` to the cgroup ``elsewhere`` and remove it: sockets stay."""
        self.cgroup("elsewhere")
        for pid in (self._cgroup_dir(path) / "cgroup.procs").read_text().split():
            (self._cgroup_dir("elsewhere") / "cgroup.procs").write_text(pid)
        wait_for(partial(_rmdir, str(self._cgroup_dir(path))), f"{path} is removed")

    def _cgroup_dir(self, path: str = "") -> Path:
        return self.cgroup_root / self.name / path

    def _remove_cgroups(self) -> None:
        self.remove_cgroup("")

    # Processes

    def _enter(self, ns: str) -> list[str]:
        # Not `ip netns exec`: its fresh /sys hides cgroup2.
        return ["nsenter", f"--net=/run/netns/{self.netns(ns)}"]

    def popen(
        self, args: list[str], ns: str | None = "client", cgroup: str | None = None, **popen_args: Any
    ) -> subprocess.Popen[Any]:
        """A process in a namespace (None: the test's own) and, from its first instruction, in a cgroup.

        ``cgroup`` is a path inside the lab's own cgroup, made where it is missing; None: the test's own.
        """
        wrapped = [*(self._enter(ns) if ns else []), *args]
        if cgroup is not None:
            self.cgroup(cgroup)
            procs = str(self._cgroup_dir(cgroup) / "cgroup.procs")
            wrapped = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', procs, *wrapped]
        # A group of its own, so that tear-down reaches its children too; the variable names leftovers.
        environment = {**os.environ, "MPTCP_PM_LAB": self.name, **popen_args.pop("env", {})}
        process = subprocess.Popen(wrapped, cwd=ROOT, env=environment, start_new_session=True, **popen_args)
        self._processes.append(process)
        return process

    def _hold_mounts(self) -> None:
        """Start the process that keeps the services' mount namespace: pins outlive a killed service."""
        mount = "mount -t bpf bpf /sys/fs/bpf" if self.bpffs else "true"
        script = f"umount --quiet --lazy --all --types bpf; {mount} && echo ready && exec cat"
        self._holder = self.popen(
            ["unshare", "--mount", "sh", "-c", script], ns=None, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"

    def in_mounts(self, *command: str, ns: str | None = None) -> str:
        """Output of a command among the mounts of the lab's services; ``ns`` as for ``popen``."""
        return run(*self._enter_mounts(), *(self._enter(ns) if ns else []), *command)

    def _enter_mounts(self) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", f"--wd={ROOT}"]

    def pins(self) -> list[Path]:
        """Files in the lab's bpffs: what services left pinned."""
        mounted = Path(f"/proc/{self._holder.pid}/root/sys/fs/bpf")
        # The kernel puts two *.debug files into every bpffs.
        return [path for path in mounted.rglob("*") if not path.is_dir() and path.suffix != ".debug"]

    def service(
        self,
        config: Config,
        ns: str = "client",
        start: bool = True,
        program: list[str] | None = None,
        **popen_args: Any,
    ) -> Service:
        """A running, ready service. ``config``: a document or YAML text (see ``Service.configure``).

        ``program`` stands for the command ``mptcp-pm``.
        """
        directory = Path(tempfile.mkdtemp(prefix="service-", dir=self.directory))
        usual = [*(like_the_unit() if LIKE_THE_UNIT else []), *command()]
        service = Service(
            directory, config, self._enter_mounts(), self.popen, program or usual, ns=ns, **popen_args
        )
        self._stack.callback(service.stop)
        self._logs.append((self.netns(ns), service.log_path))
        return service.start() if start else service

    def traffic(self, *args: str, ns: str = "client", cgroup: str | None = None) -> Traffic:
        """A traffic tool with these arguments, ready for commands."""
        return Traffic(
            self.popen(
                [sys.executable, str(ROOT / "tests/lab/traffic_tool.py"), *args],
                ns,
                cgroup,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )

    def server(self, *args: str, ns: str = "server", cgroup: str | None = None) -> Traffic:
        """An echo server on port 5000, both families (``--sink``, ``--port``: see traffic_tool.py)."""
        return self.traffic("server", *args, ns=ns, cgroup=cgroup)

    def client(
        self, host: str | None = None, *args: str, ns: str = "client", cgroup: str | None = None
    ) -> Traffic:
        """A client of ``host`` (default: the server's address on link 1), with no connection yet."""
        return self.traffic("client", host or self.address("server", 1), *args, ns=ns, cgroup=cgroup)

    def _end_processes(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def notes(self, ns: str = "client") -> str:
        """What services of a namespace noted for the next one: JSON, "" for none."""
        try:
            return self._notes_file(ns).read_text()
        except FileNotFoundError:
            return ""

    def _notes_file(self, ns: str) -> Path:
        return inside(self.netns(ns), lambda: namespace_file(STATE_DIRECTORY, "notes"))

    def _remove_netns(self, ns: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            notes = self._notes_file(ns)
            notes.unlink(missing_ok=True)
            for log in notes.parent.glob(f"bpf-*-{notes.stem.rpartition('-')[2]}.log"):
                log.unlink(missing_ok=True)
        for pid in run("ip", "netns", "pids", self.netns(ns)).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "del", self.netns(ns))


def leftovers() -> Iterator[str]:
    """What labs of this process left on the machine, in words. Nothing, if all is well."""
    for name in run("ip", "netns", "list").split():
        if name.startswith(f"{NAME}-"):
            yield f"network namespace {name}"
    for path in cgroup2_root().glob(f"{NAME}-*"):
        yield f"cgroup {path}"
    for path in Path(tempfile.gettempdir()).glob(f"{NAME}-*"):
        yield f"directory {path}"
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"MPTCP_PM_LAB={NAME}-".encode() in environ.read_bytes():
                yield f"process {environ.parent.name} {(environ.parent / 'cmdline').read_bytes()!r}"


def _rmdir(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _address(link: int, host: int, family: int) -> str:
    if family == 4:
        return f"10.77.{link}.{host}"
    return f"fd00:77:{link}::{host or ''}"


def _prefix(link: int, host: int, family: int) -> str:
    return f"{_address(link, host, family)}/{24 if family == 4 else 64}"


def _flags(family: int) -> str:
    return "nodad" if family == 6 else ""
