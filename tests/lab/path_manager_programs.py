# SPDX-License-Identifier: Apache-2.0
"""The programs of bpf_pm/path_managers at work without the service, and what the pure functions want."""

from __future__ import annotations

import ctypes
import os
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from pm.clock import Moment
from pm.linux.bpf import libbpf
from pm.linux.bpf.classifier_maps import policy_id
from pm.linux.bpf.layouts import NETNS_COOKIE_PLACEHOLDER, POLICY_ID_PLACEHOLDER
from pm.linux.bpf.local_address_maps import LOCALS, local_entry, up_entries
from pm.linux.bpf.path_manager_maps import (
    SOURCE,
    compiler_flags,
    policy_entries,
    remote_entries,
    third_parties_of,
)
from pm.linux.host.netns import netns_cookie
from pm.linux.netlink.mptcp_pm import PathManagerSocket
from pm.model import LocalAddress, Origin, Pair, RemoteAddress, Role, Subflow, SubflowState, Wanted
from pm.path_managers.registry import registry
from pm.policies.model import Limits, Policy
from pm.policies.remote_addresses import RemoteAddresses
from pm.sessions.history import History
from pm.sessions.session import Session
from pm.sessions.subflows import Subflows
from tests.lab.netns import inside
from tests.lab.oracle import Flow
from tests.lab.sock_ops import LOG, compiled, link
from tests.lab.two_hosts import Host, TwoHosts
from tests.lab.waiting import wait_equal

Pairs = Counter[Pair]
Load = Callable[..., "PathManagerProgram"]
"""The fixture ``load``: arguments of PathManagerProgram."""


class PathManagerProgram:
    """The program of a policy, attached to a host's cgroup; closing it detaches it.

    ``room``: sessions that it can claim. Address ids are slots, from 1.
    """

    def __init__(
        self, host: Host, policy: Policy, locals_: Sequence[LocalAddress] = (), *, room: int = 0
    ) -> None:
        self._host = host
        self._others = tuple(third_parties_of([policy]))
        self._object = compiled(SOURCE, tuple(compiler_flags(self._others)))
        self.maps = {}
        for name, (_, spec) in self._object.maps.items():
            limited = spec._replace(max_entries=room) if room and name == "claims" else spec
            self.maps[name] = libbpf.create_map(name, limited)
        self.configure(policy, locals_)
        self._program = self._load(policy)
        self._link = link(self._program, host.cgroup)

    def configure(self, policy: Policy, locals_: Sequence[LocalAddress]) -> None:
        entries = policy_entries(policy, self._others, Limits())
        for name, wanted in (
            ("path_parameters", entries.parameters),
            ("accepted_peers", entries.accepted),
            ("remote_prefixes", remote_entries(RemoteAddresses())),
        ):
            for key, value in wanted.items():
                libbpf.update(self.maps[name], key, value)
        for slot in range(LOCALS):
            self.set_local(slot, locals_[slot] if slot < len(locals_) else None)

    def set_local(
        self, slot: int, local: LocalAddress | None, *, usable: bool = True, up: bool | None = None
    ) -> None:
        """Without ``usable`` the address is gone, unless it is ``up``: then the rules exclude it."""
        value = local_entry(local.ip, slot + 1, local if usable else None) if local else bytes(40)
        libbpf.update(self.maps["local_addr_map"], struct.pack("=I", slot), value)
        if local:
            self.set_up(local, up=usable if up is None else up)

    def set_up(self, local: LocalAddress, *, up: bool = True) -> None:
        ((key, value),) = up_entries([local.ip], {local.ip: local.ifindex}).items()
        if up:
            libbpf.update(self.maps["up_addresses"], key, value)
        else:
            libbpf.delete(self.maps["up_addresses"], key)

    def replace(self, policy: Policy) -> None:
        """Put the program of another policy in its place, as a reload does."""
        program = self._load(policy)
        libbpf.update_link(self._link, program)
        os.close(self._program)
        self._program = program

    def reattach(self) -> None:
        """Attach it by another link, and end the one that it had."""
        former, self._link = self._link, link(self._program, self._host.cgroup)
        os.close(former)

    def tokens(self) -> list[int]:
        """The tokens of the claimed sessions."""
        return [int(*struct.unpack("=I", key)) for key in libbpf.keys(self.maps["claims"], 4)]

    def sessions(self) -> int:
        return len(self.tokens())

    def count(self, counter: int) -> int:
        values = (ctypes.c_uint64 * libbpf.possible_cpus())()
        libbpf.lookup(self.maps["claim_counters"], ctypes.c_uint32(counter), values)
        return sum(values)

    def close(self) -> None:
        if self.maps:
            for fd in (self._link, self._program, *self.maps.values()):
                os.close(fd)
        self.maps.clear()

    def _load(self, policy: Policy) -> int:
        cookie = inside(self._host.name, netns_cookie)
        return self._object.load(
            f"path_manager_{policy_entries(policy, self._others, Limits()).program}",
            maps=self.maps,
            constants={NETNS_COOKIE_PLACEHOLDER: cookie, POLICY_ID_PLACEHOLDER: policy_id(policy.name)},
            log_file=LOG,
        )


@contextmanager
def netlink(host: Host) -> Iterator[PathManagerSocket]:
    """The service's way to a session."""
    with inside(host.name, PathManagerSocket.open) as genl:
        yield genl


def local_address(ip: str, *, backup: bool = False) -> LocalAddress:
    """The address as the service knows it, on either host: link N has 10.N... and fd00:N..."""
    link = int(re.split("[.:]+", ip)[1])
    return LocalAddress(ip, 24, link + 1, f"eth{link}", True, backup, "")


class Announced(NamedTuple):
    ip: str
    port: int = 0


class Topology(NamedTuple):
    locals: tuple[str, ...]  # a "!" at the end: backup
    server: str = "10.1.0.2"
    announced: tuple[Announced, ...] = ()
    family: int = 0

    @property
    def addresses(self) -> list[LocalAddress]:
        return [local_address(ip.rstrip("!"), backup=ip.endswith("!")) for ip in self.locals]


def v4(ip: str) -> str:
    return ip.removeprefix("::ffff:")


def wanted(
    policy: Policy,
    topology: Topology,
    end: socket.socket,
    remotes: Sequence[Announced] = (),
    *,
    role: Role = Role.CLIENT,
    deny_join_id0: bool = False,
) -> Wanted:
    """What the pure function says of the session of ``end``."""
    (local, local_port), (remote, remote_port) = end.getsockname()[:2], end.getpeername()[:2]
    ends = v4(local), local_port, v4(remote), remote_port
    initial = Subflow(*ends, Origin.INITIAL, SubflowState.ESTABLISHED)
    session = Session(
        token=1,
        number=1,
        role=role,
        deny_join_id0=deny_join_id0,
        socket_family=6 if end.family == socket.AF_INET6 else 4,
        local=v4(local),
        local_port=local_port,
        remote=v4(remote),
        remote_port=remote_port,
        created=Moment(0.0, 0.0),
        local_ifindex=next((a.ifindex for a in topology.addresses if a.ip == v4(local)), 0),
        history=History(),
        subflows=Subflows([initial]),
        remotes=tuple(RemoteAddress(a.ip, a.port, i) for i, a in enumerate(remotes, 1)),
    )
    usable = [a for a in topology.addresses if session.socket_family == 6 or a.family == 4]
    manager = registry()[policy.path_manager.name]
    result: Wanted = manager.wanted(session, usable, policy.path_manager.parameters)
    return result


def initial_pair(end: socket.socket) -> Pair:
    return Pair(v4(end.getsockname()[0]), v4(end.getpeername()[0]), end.getpeername()[1])


def count(result: Wanted) -> Pairs:
    return Counter({pair: want.subflows for pair, want in result.items()})


def pairs(host: Host) -> Pairs:
    """The established subflows of a host."""
    return Counter(Pair(flow.local, flow.remote, flow.remote_port) for flow in host.subflows())


def settled(hosts: TwoHosts, client: socket.socket, result: Wanted) -> None:
    """The client has the subflows, with their backup flags, and asked the kernel for no others."""
    expected = count(result)
    wait_equal(lambda: pairs(hosts.client), expected)
    opened = expected - Counter([initial_pair(client)])
    initial_changed = result[initial_pair(client)].backup
    assert hosts.client.counter("BPFReq") == opened.total() + initial_changed
    assert hosts.client.counter("BPFReqRefused") == hosts.client.counter("BPFReqFailed") == 0
    assert hosts.server.counter("MPJoinSynBackupRx") == sum(n for p, n in opened.items() if result[p].backup)
    wait_equal(lambda: hosts.server.counter("MPPrioRx"), initial_changed)


def announce(host: Host, announced: Sequence[Announced], *, first: int = 1) -> None:
    """The host's own path manager announces these addresses, with ids from ``first`` on."""
    for number, a in enumerate(announced, first):
        port = ("port", str(a.port)) if a.port else ()
        host.mptcp("endpoint", "add", a.ip, "id", str(number), "signal", *port)


def accept_joins(hosts: TwoHosts) -> None:
    """The server's own path manager takes what the client opens; the client has a third address.

    Its limit is as high as the kernel has it: Linux 7.2 and newer count what is closing, too.
    """
    hosts.server.mptcp("limits", "set", "subflows", "8", "add_addr_accepted", "8")
    with suppress(AssertionError):
        hosts.server.mptcp("limits", "set", "subflows", "64", "add_addr_accepted", "64")
    hosts.client.ip("addr", "add", "10.1.0.9/24", "dev", "eth1")


def open_by_hand(host: Host, program: PathManagerProgram, pair: Pair, local_id: int) -> None:
    """A subflow as the service or the operator opens it."""
    (token,) = program.tokens()
    with netlink(host) as genl:
        prepared = genl.prepare_subflow(pair.local, local_id, pair.remote, pair.remote_port, backup=False)
        genl.create_subflow(token, prepared)


def close_by_hand(host: Host, program: PathManagerProgram, pair: Pair, *, but: int = 0) -> None:
    """One of the pair's subflows, not that from the port ``but``."""
    ports = [
        flow.local_port
        for flow in host.subflows()
        if Pair(flow.local, flow.remote, flow.remote_port) == pair and flow.local_port != but
    ]
    (token,) = program.tokens()
    with netlink(host) as genl:
        genl.destroy_subflow(token, pair.local, ports[0], pair.remote, pair.remote_port, socket_family=4)


def end_subflow(host: Host, token: int, flow: Flow) -> None:
    """This host closes the subflow, as the service or the operator does."""
    with netlink(host) as genl:
        genl.destroy_subflow(
            token,
            flow.local,
            flow.local_port,
            flow.remote,
            flow.remote_port,
            socket_family=6 if ":" in flow.local else 4,
        )
