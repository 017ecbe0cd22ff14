# SPDX-License-Identifier: Apache-2.0
"""The laboratory itself: what the other tests rely on is true."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.lab.lab import Lab, leftovers
from tests.lab.oracle import parse_subflows
from tests.lab.traffic import assert_same_bytes
from tests.lab.waiting import wait_equal, wait_for


@pytest.mark.parametrize("family", [4, 6])
def test_connection_is_mptcp(lab: Lab, family: int) -> None:
    """A connection is MPTCP with one subflow, the initial one, between the addresses asked for."""
    lab.server()
    client = lab.client(lab.address("server", 1, family))
    client.open(2)
    assert [c["mptcp"] for c in client.report()] == [True, True]
    flows = lab.subflows()
    assert len(flows) == 2
    for (flow,) in flows.values():
        assert flow.initial
        assert (flow.local, flow.remote) == (
            lab.address("client", 1, family),
            lab.address("server", 1, family),
        )
        assert (flow.remote_port, flow.state) == (5000, "ESTAB")


def test_plain_tcp_has_no_subflows(lab: Lab) -> None:
    """The oracle lists MPTCP only."""
    lab.server()
    client = lab.client(None, "--tcp")
    client.open()
    assert client.report()[0]["mptcp"] is False
    assert lab.subflows() == {}


def test_dual_stack_socket_is_shown_as_ipv4(lab: Lab) -> None:
    """An IPv6 socket connected to a v4-mapped address has IPv4 subflows."""
    lab.server()
    lab.client(None, "--dual-stack").open()
    ((flow,),) = lab.subflows().values()
    assert (flow.local, flow.remote) == (lab.address("client", 1), lab.address("server", 1))


def test_kernel_endpoint_adds_a_subflow(lab: Lab) -> None:
    """With the in-kernel path manager, an endpoint on link 2 joins to the server's address on link 1."""
    lab.ip("client", "mptcp", "endpoint", "add", lab.address("client", 2), "dev", "eth1", "subflow")
    lab.server()
    lab.client().open()
    lab.wait_subflows(2)
    (flows,) = lab.subflows().values()
    joined = next(f for f in flows if not f.initial)
    assert (joined.local, joined.remote) == (lab.address("client", 2), lab.address("server", 1))
    assert (joined.local_id, joined.remote_id, joined.backup) == (1, 0, False)


def test_announced_address_is_joined(lab: Lab) -> None:
    """The server's kernel announces an address and the client's joins it."""
    lab.ip("server", "mptcp", "endpoint", "add", lab.address("server", 2), "dev", "eth1", "signal")
    lab.server()
    lab.client().open()
    lab.wait_subflows(2)
    (flows,) = lab.subflows().values()
    assert {f.remote for f in flows} == {lab.address("server", 1), lab.address("server", 2)}


@pytest.mark.parametrize(("client", "server"), [(2, 4), (4, 1), (3, 3)])
@pytest.mark.parametrize("family", [4, 6])
def test_every_address_reaches_every_address(
    make_lab: Callable[..., Lab], client: int, server: int, family: int
) -> None:
    """Any number of interfaces on each side: all pairs of addresses carry connections."""
    lab = make_lab(client=client, server=server)
    lab.server()
    pairs = set()
    for remote in lab.addresses("server", family):
        for local in lab.addresses("client", family):
            lab.client(remote, "--bind", local).open()
            pairs.add((local, remote))
    assert {(f.local, f.remote) for (f,) in lab.subflows().values()} == pairs


def test_traffic_compares_checksums(lab: Lab) -> None:
    """Both ends agree on every byte of both directions, in echo and in sink mode."""
    server = lab.server()
    client = lab.client()
    client.open(3)
    client.send(bytes=1_000_000)
    assert assert_same_bytes(client, server) == 3 * 1_000_001
    sink = lab.server("--sink", "--port", "5001")
    sender = lab.client(None, "--sink", "--port", "5001")
    sender.open()
    sender.send(bytes=1_000_000)
    wait_equal(lambda: sink.report()[0]["received"], 1_000_001)
    assert assert_same_bytes(sender, sink) == 1_000_001


def test_send_holds_its_rate(lab: Lab) -> None:
    """A throttled stream sends about rate × time."""
    lab.server()
    client = lab.client()
    client.open()
    assert client.send(seconds=0.5, rate=100_000)["sent"] <= 60_000


def test_link_down_is_carrier_loss(lab: Lab) -> None:
    """A pulled cable: the interface stays up and keeps its addresses, its carrier is gone; and back."""
    lab.set_link("client", 2, up=False)
    wait_for(lambda: "NO-CARRIER" in lab.ip("client", "link", "show", "eth1"), "no carrier")
    shown = lab.ip("client", "addr", "show", "eth1")
    assert lab.address("client", 2) in shown
    assert lab.address("client", 2, 6) in shown
    assert "NO-CARRIER" not in lab.ip("server", "link", "show", "eth1")
    lab.set_link("client", 2, up=True)
    wait_for(lambda: "LOWER_UP" in lab.ip("client", "link", "show", "eth1"), "a carrier")
    lab.server()
    lab.client(None, "--bind", lab.address("client", 2)).open()


def test_addresses_come_and_go(lab: Lab) -> None:
    """A second address on an interface carries connections until it is removed."""
    lab.server()
    for extra in ("10.77.2.9", "fd00:77:2::9"):
        lab.add_address("client", 2, extra)
        remote = lab.address("server", 1, 6 if ":" in extra else 4)
        lab.client(remote, "--bind", extra).open()
        lab.del_address("client", 2, extra)
        assert extra not in lab.ip("client", "addr")


def test_shape_limits_a_link(lab: Lab) -> None:
    """A megabyte takes longer over a link of 20 Mbit/s than the 0.3 s that is its share without the burst."""
    lab.shape(1, mbit=20)
    lab.server()
    client = lab.client()
    client.open()
    assert client.send(bytes=1_000_000)["seconds"] > 0.3


def test_process_starts_in_its_cgroup(lab: Lab) -> None:
    """The first instruction of the command already runs in the cgroup and in the namespace."""
    process = lab.popen(["cat", "/proc/self/cgroup"], cgroup="a/b", stdout=subprocess.PIPE, text=True)
    assert f"0::{lab.cgroup_path('a/b')}\n" in process.communicate()[0]


@pytest.mark.parametrize("bpffs", [True, False])
def test_services_have_a_bpffs_of_their_own(make_lab: Callable[..., Lab], bpffs: bool) -> None:
    """What a service sees at /sys/fs/bpf is the lab's, empty, and not the machine's; or there is none."""
    lab = make_lab(bpffs=bpffs)
    service = lab.service("", start=False)
    process = lab.popen([*service.prefix, "cat", "/proc/self/mounts"], stdout=subprocess.PIPE, text=True)
    assert process.communicate()[0].count(" bpf ") == bpffs
    assert lab.pins() == []


def test_many_connections(lab: Lab) -> None:
    """A burst of a thousand connections: each one MPTCP, with its first exchange done."""
    lab.server()
    client = lab.client()
    client.open(1000)
    assert len(lab.subflows()) == 1000
    client.close(999)
    wait_equal(lambda: sum(f.state == "ESTAB" for (f,) in lab.subflows().values()), 1)


def test_nothing_is_left_after_a_failure() -> None:
    """A test that fails leaves no namespace, cgroup, process or directory."""

    def fail() -> None:
        with Lab() as lab:
            lab.server()
            lab.client(cgroup="a/b").open()
            lab.popen(["sh", "-c", "sleep 60 & sleep 60"], cgroup="a/c")
            assert len(list(leftovers())) > 5
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert list(leftovers()) == []


def test_service_that_ends_at_once_fails_with_its_log(lab: Lab) -> None:
    """A service that does not start fails the test at once, and says why."""
    with pytest.raises(AssertionError, match=r"ended with [1-9]"):
        lab.service("nonsense: true")


def test_ss_output_is_read() -> None:
    """Both spellings of endpoints and all fields of ss (iproute2 6.1)."""
    text = (
        "ESTAB 0 0 10.0.0.1%eth0:4000 10.0.0.2:80 cubic tcp-ulp-mptcp flags:Mmec "
        "token:0000(id:0)/a1b2c3d4(id:0)\n"
        "ESTAB 0 0 [::ffff:10.0.1.1]:4001 [::ffff:10.0.0.2]:80 tcp-ulp-mptcp flags:JjBbec "
        "token:11112222(id:3)/a1b2c3d4(id:1) seq:1 \n"
        "LISTEN 0 5 *:80 *:* cubic\n"
    )
    first, second = parse_subflows(text)[0xA1B2C3D4]
    assert first[:6] == ("10.0.0.1", 4000, "10.0.0.2", 80, 0, 0)
    assert second[:6] == ("10.0.1.1", 4001, "10.0.0.2", 80, 1, 3)
    assert first.initial
    assert second.backup
