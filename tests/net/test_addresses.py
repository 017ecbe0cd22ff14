# SPDX-License-Identifier: Apache-2.0
"""The monitor of local addresses beside a kernel whose interfaces and addresses change."""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pyroute2 import IPRoute

from pm.linux.netlink.addresses import AddressMonitor
from pm.model import LocalAddress
from pm.policies.model import Addresses
from tests.lab.commands import run
from tests.lab.netns import inside, namespace, write_sysctls

DEADLINE_S = 10.0  # the kernel takes up to a second to tell of a carrier


class Followed:
    """An AddressMonitor whose changes a test can wait for."""

    monitor: AddressMonitor

    def __init__(self, netns: str) -> None:
        self.netns = netns
        self.changes: list[tuple[LocalAddress, ...]] = []
        self.changed = asyncio.Event()

    def on_change(self, addresses: tuple[LocalAddress, ...]) -> None:
        self.changes.append(addresses)
        self.changed.set()

    def ip(self, *lines: str) -> None:
        """``ip`` commands, carried out before the event loop can read any of their events."""
        run("ip", "-n", self.netns, "-batch", "-", input="\n".join(lines))

    def why(self) -> dict[str, str]:
        return {address.ip: address.why for address in self.monitor.addresses}

    async def until(self, condition: Callable[[dict[str, str]], bool]) -> None:
        """Wait until ``condition`` holds of address -> why."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition(self.why()):
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def netns() -> Iterator[str]:
    with namespace() as name:
        run("ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", name, "link", "set", "peer0", "up")
        yield name


def subscribed(netns: str) -> set[str]:
    """The netlink sockets of the namespace that get rtnetlink's events, as the kernel lists them."""
    lines = inside(netns, Path("/proc/thread-self/net/netlink").read_text).splitlines()[1:]
    sockets = (line.split() for line in lines)
    return {inode for _, protocol, _, groups, *_, inode in sockets if protocol == "0" and int(groups, 16)}


def follow(
    netns: str,
    scenario: Callable[[Followed], Awaitable[None]],
    rules: Addresses | None = None,
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    **monitor_args: Any,
) -> None:
    async def main() -> None:
        followed = Followed(netns)
        opened = AddressMonitor.open(rules or Addresses(), followed.on_change, **monitor_args)
        async with opened as followed.monitor:
            await scenario(followed)

    def run_loop() -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())

    inside(netns, run_loop)


def test_the_dump_agrees_with_pyroute2(netns: str) -> None:
    """At entry the monitor knows every address, with interface and prefix, as pyroute2 decodes them."""
    run(
        "ip", "-n", netns, "-batch", "-",
        input="link set lo up\naddr add 192.0.2.1/24 dev eth0\naddr add 192.0.2.2/24 dev eth0\n"
        "addr add 198.51.100.1 peer 198.51.100.2/32 dev eth0\naddr add 2001:db8::1/64 dev eth0\n"
        "addr add 2001:db8:1::1 peer 2001:db8:1::2 dev eth0",
    )  # fmt: skip

    def expected() -> set[tuple[int, str, int]]:
        with IPRoute() as route:
            return {
                (m["index"], m.get_attr("IFA_LOCAL") or m.get_attr("IFA_ADDRESS"), m["prefixlen"])
                for m in route.get_addr()
            }

    async def scenario(followed: Followed) -> None:
        await followed.until(lambda why: any(ip.startswith("fe80::") for ip in why))
        known = await asyncio.to_thread(inside, netns, expected)
        assert {(x.ifindex, x.ip, x.prefix_len) for x in followed.monitor.addresses} == known
        ifindex = {ip: ifindex for ifindex, ip, _ in known}
        assert {"192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8:1::1"} <= set(ifindex)
        assert followed.monitor.interface_of("192.0.2.2") == ifindex["192.0.2.2"]
        assert followed.monitor.interface_of("192.0.2.3") == 0
        assert followed.why()["127.0.0.1"] == "loopback interface"

    follow(netns, scenario)


def test_an_added_and_a_deleted_address_are_told_once_each(netns: str) -> None:
    """One address event is one call with all addresses; a second prefix of an address changes nothing."""

    async def scenario(followed: Followed) -> None:
        followed.ip("addr add 192.0.2.1/24 dev eth0")
        await followed.until(lambda why: why.get("192.0.2.1") == "usable")
        followed.ip("addr add 192.0.2.1/28 dev eth0", "addr del 192.0.2.1/28 dev eth0")
        followed.ip("addr del 192.0.2.1/24 dev eth0")
        await followed.until(lambda why: "192.0.2.1" not in why)
        tellings = [[x.usable for x in change if x.ip == "192.0.2.1"] for change in followed.changes]
        assert tellings == [[True], []] or tellings == [[True], [True], []]

    follow(netns, scenario)


def test_a_deleted_address_is_told_at_once(netns: str) -> None:
    """From the end of ``ip addr del`` to the call nothing waits: one turn of the event loop is enough."""

    async def scenario(followed: Followed) -> None:
        followed.ip("addr add 192.0.2.1/24 dev eth0")
        await followed.until(lambda why: "192.0.2.1" in why)
        followed.ip("addr del 192.0.2.1/24 dev eth0")
        for _ in range(3):  # the selector's turn, and the callbacks' after it
            await asyncio.sleep(0)
        assert "192.0.2.1" not in followed.why()

    follow(netns, scenario)


def test_a_veth_whose_peer_is_down_has_no_carrier(netns: str) -> None:
    """Carrier lost and regained, and the interface taken down and up, change the verdict, not the list."""

    async def scenario(followed: Followed) -> None:
        followed.ip("addr add 192.0.2.1/24 dev eth0")
        await followed.until(lambda why: why.get("192.0.2.1") == "usable")
        followed.ip("link set peer0 down")
        await followed.until(lambda why: why["192.0.2.1"] == "interface has no carrier")
        followed.ip("link set peer0 up")
        await followed.until(lambda why: why["192.0.2.1"] == "usable")
        followed.ip("link set eth0 down")
        await followed.until(lambda why: why["192.0.2.1"] == "interface is down")
        followed.ip("link set eth0 up")
        await followed.until(lambda why: why["192.0.2.1"] == "usable")

    follow(netns, scenario)


def test_an_ipv6_address_is_tentative_first(netns: str) -> None:
    """Tentative until the kernel's duplicate address detection is over; then as its lifetime says."""

    async def scenario(followed: Followed) -> None:
        await followed.until(lambda why: any(ip.startswith("fe80::") for ip in why))
        followed.ip("addr add 2001:db8::1/64 dev eth0")
        await followed.until(lambda why: why.get("2001:db8::1") == "usable")
        verdicts = [x.why for change in followed.changes for x in change if x.ip == "2001:db8::1"]
        assert verdicts[0] == "tentative: duplicate address detection is running"
        followed.ip("addr change 2001:db8::1/64 dev eth0 preferred_lft 0 valid_lft 100")
        await followed.until(lambda why: why["2001:db8::1"] == "deprecated: preferred lifetime is over")

    follow(netns, scenario)


@pytest.mark.parametrize("use_optimistic", [0, 1])
def test_an_optimistic_address_is_up_while_it_is_tentative(netns: str, use_optimistic: int) -> None:
    """RFC 4429: an application may be bound to it already, so it is not "lost"; a dump shows it in any case.

    The kernel tells of it by an event only with ``use_optimistic``; without, after the detection.
    """
    conf = "net.ipv6.conf.eth0."
    write_sysctls(
        netns,
        {
            conf + "accept_dad": 1,
            conf + "optimistic_dad": 1,
            conf + "use_optimistic": use_optimistic,
            conf + "dad_transmits": 60,  # seconds: it stays tentative throughout the test
        },
    )

    def flags() -> list[str]:
        shown = json.loads(run("ip", "-n", netns, "-j", "addr", "show", "dev", "eth0"))[0]["addr_info"]
        return [
            key
            for a in shown
            if a["local"] == "2001:db8::1"
            for key in ("optimistic", "tentative")
            if key in a
        ]

    async def add(followed: Followed) -> None:
        followed.ip("addr add 2001:db8::1/64 dev eth0 optimistic", "addr add 2001:db8::2/64 dev eth0")
        told = {"2001:db8::2", "2001:db8::1"} if use_optimistic else {"2001:db8::2"}
        await followed.until(lambda why: told <= set(why))
        assert followed.why().get("2001:db8::1") == ("usable" if use_optimistic else None)

    async def scenario(followed: Followed) -> None:
        found = {a.ip: a for a in followed.monitor.addresses}
        assert (found["2001:db8::1"].usable, found["2001:db8::1"].up) == (True, True)
        assert found["2001:db8::2"].why == "tentative: duplicate address detection is running"
        with inside(netns, lambda: socket.socket(socket.AF_INET6)) as bound:
            bound.bind(("2001:db8::1", 0))
        assert flags() == ["optimistic", "tentative"]

    follow(netns, add)
    follow(netns, scenario)


def test_an_address_is_deprecated_when_its_preferred_lifetime_ends(netns: str) -> None:
    """The kernel tells the end of the preferred lifetime and of the valid one, for IPv4 as well."""

    async def scenario(followed: Followed) -> None:
        followed.ip("addr add 192.0.2.1/24 dev eth0 preferred_lft 1 valid_lft 2")
        await followed.until(lambda why: why.get("192.0.2.1") == "usable")
        await followed.until(lambda why: why.get("192.0.2.1") == "deprecated: preferred lifetime is over")
        await followed.until(lambda why: "192.0.2.1" not in why)

    follow(netns, scenario)


def test_a_bridge_port_keeps_its_addresses(netns: str) -> None:
    """Leaving a bridge sends RTM_DELLINK for the port (family AF_BRIDGE): the interface is not gone."""

    async def scenario(followed: Followed) -> None:
        followed.ip("addr add 192.0.2.1/24 dev eth0", "link add br0 type bridge", "link set eth0 master br0")
        await followed.until(lambda why: why.get("192.0.2.1") == "usable")
        followed.ip("link set eth0 nomaster", "addr add 192.0.2.9/24 dev eth0")
        await followed.until(lambda why: "192.0.2.9" in why)
        assert followed.why()["192.0.2.1"] == "usable"

    follow(netns, scenario)


NO_UPLINK = "bridge without an uplink, and no entry of addresses.include but * matches"


def test_a_bridge_is_used_while_it_has_an_uplink(netns: str) -> None:
    """docker0 and virbr0 lead to this host only; a bridge gains and loses its uplink with its ports.

    The uplink is a macvlan whose lower interface is in another namespace: a container's own interface.
    """
    with namespace() as outside:
        run("ip", "-n", outside, "link", "add", "nic", "type", "veth", "peer", "name", "wire")
        run("ip", "-n", outside, "link", "set", "nic", "up")
        run("ip", "-n", outside, "link", "set", "wire", "up")
        run(
            "ip",
            "-n",
            outside,
            "link",
            "add",
            "link",
            "nic",
            "name",
            "up0",
            "netns",
            netns,
            "type",
            "macvlan",
        )

        async def scenario(followed: Followed) -> None:
            followed.ip(
                "link add br0 type bridge", "link set br0 up", "link set up0 up",
                "addr add 172.17.0.1/16 dev br0", "addr add fd00:17::1/64 dev br0 nodad",
            )  # fmt: skip
            for ip in ("172.17.0.1", "fd00:17::1"):
                await followed.until(lambda why, ip=ip: why.get(ip) == NO_UPLINK)  # type: ignore[misc]
            assert all(a.up for a in followed.monitor.addresses if a.ip == "172.17.0.1")
            followed.ip("link set peer0 master br0", "addr add 192.0.2.1/24 dev eth0")
            await followed.until(lambda why: why.get("192.0.2.1") == "usable")
            assert followed.why()["172.17.0.1"] == NO_UPLINK
            followed.ip("link set up0 master br0")
            await followed.until(lambda why: why["172.17.0.1"] == why["fd00:17::1"] == "usable")
            followed.ip("link set up0 nomaster")
            await followed.until(lambda why: why["172.17.0.1"] == why["fd00:17::1"] == NO_UPLINK)
            followed.monitor.set_rules(Addresses(include=("*", "br0")))
            assert followed.why()["172.17.0.1"] == "usable"

        follow(netns, scenario)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        ("tuntap add x0 mode tun", "tunnel (tun)"),
        ("tuntap add x0 mode tap", "tunnel (tun)"),
        ("link add x0 type vxlan id 5 dstport 4789", "tunnel (vxlan)"),
        ("link add x0 type ifb", "ifb interface: no packet leaves over it"),
        ("link add link x1 name x0 type macvlan", "macvlan over x1: tunnel (vxlan)"),
    ],
)
def test_tunnels_are_used_only_by_name(netns: str, make: str, why: str) -> None:
    """The kinds that this kernel has; the others are forged in tests/unit. veth, macvlan over it: usable."""

    async def scenario(followed: Followed) -> None:
        followed.ip("link add x1 type vxlan id 6 dstport 4790", "link set x1 up", make)
        with carrier(netns, make):
            followed.ip("link set x0 up", "addr add 10.6.0.2/24 dev x0", "addr add fd00:6::2/64 dev x0 nodad")
            wanted = f"{why}, and no entry of addresses.include but * matches"
            await followed.until(lambda why: why.get("10.6.0.2") == why.get("fd00:6::2") == wanted)
            assert {a.up for a in followed.monitor.addresses if a.ifname == "x0" and a.why == wanted} == {
                True
            }
            followed.monitor.set_rules(Addresses(include=("*", "x?")))
            assert followed.why()["10.6.0.2"] == followed.why()["fd00:6::2"] == "usable"

    follow(netns, scenario)


@contextmanager
def carrier(netns: str, make: str) -> Iterator[None]:
    """A tun or tap interface has carrier while a program holds it open."""
    if not make.startswith("tuntap"):
        yield
        return
    flags = 0x1002 if "tap" in make.split() else 0x1001  # IFF_TAP, IFF_TUN, with IFF_NO_PI

    def attach() -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"x0", flags))  # TUNSETIFF
        return fd

    fd = inside(netns, attach)
    try:
        yield
    finally:
        os.close(fd)


def test_links_over_a_veth_are_used(netns: str) -> None:
    """A container's own eth0 is a veth, and a macvlan is as good as the interface below."""

    async def scenario(followed: Followed) -> None:
        followed.ip(
            "link add link eth0 name mac0 type macvlan", "link set mac0 up",
            "addr add 192.0.2.1/24 dev eth0", "addr add 198.51.100.1/24 dev mac0",
        )  # fmt: skip
        await followed.until(lambda why: why.get("192.0.2.1") == why.get("198.51.100.1") == "usable")

    follow(netns, scenario)


def eth0(followed: Followed) -> list[str]:
    """The usable addresses of eth0."""
    return [address.ip for address in followed.monitor.usable if address.ifname == "eth0"]


def temporary(netns: str) -> list[str]:
    shown = json.loads(run("ip", "-n", netns, "-j", "addr", "show", "dev", "eth0"))[0]["addr_info"]
    return [a["local"] for a in shown if a.get("temporary")]


@pytest.mark.parametrize("extra", [[], ["addr add 2001:db8::d/128 dev eth0 nodad"]])
def test_the_temporary_address_is_used_as_use_tempaddr_says(netns: str, extra: list[str]) -> None:
    """2: it hides the stable address and DHCPv6's; 1: the kernel makes one, but takes a stable one."""
    write_sysctls(netns, {"net.ipv6.conf.eth0.use_tempaddr": 2, "net.ipv6.conf.eth0.accept_dad": 0})
    stable = {"2001:db8::1", "2001:db8::d"} if extra else {"2001:db8::1"}

    async def scenario(followed: Followed) -> None:
        followed.ip("addr add 2001:db8::1/64 dev eth0 mngtmpaddr nodad", *extra)
        await followed.until(lambda why: any(ip in why for ip in temporary(netns)) and stable <= set(why))
        (hidden,) = temporary(netns)
        assert eth0(followed) == [hidden]
        for ip in stable:
            assert followed.why()[ip] == f"{hidden} is used of 2001:db8::/64, and addresses.all is false"
        assert {a.up for a in followed.monitor.addresses if a.ip in (hidden, *stable)} == {True}
        followed.monitor.set_rules(Addresses(all=True))
        assert set(eth0(followed)) == {*stable, hidden}
        await asyncio.to_thread(write_sysctls, netns, {"net.ipv6.conf.eth0.use_tempaddr": 1})
        followed.monitor.set_rules(Addresses())
        (used,) = eth0(followed)
        assert used in stable

    follow(netns, scenario)


def test_each_prefix_has_an_address_also_those_that_the_kernel_does_not_take(netns: str) -> None:
    """With ``use_tempaddr`` the kernel takes another prefix's temporary address even towards a neighbour."""
    write_sysctls(netns, {"net.ipv6.conf.eth0.use_tempaddr": 2, "net.ipv6.conf.eth0.accept_dad": 0})

    async def scenario(followed: Followed) -> None:
        followed.ip(
            "addr add 2001:db8:1::1/64 dev eth0 mngtmpaddr nodad",
            "addr add 2001:db8:2::1/64 dev eth0 nodad", "addr add 2001:db8:2::2/64 dev eth0 nodad",
            *(f"addr add fd00:9::{i}/64 dev eth0 nodad noprefixroute" for i in (1, 2)),
        )  # fmt: skip
        await followed.until(lambda why: any(ip in why for ip in temporary(netns)) and "fd00:9::2" in why)
        prefixes = sorted(str(ipaddress.ip_network((ip, 64), strict=False)) for ip in eth0(followed))
        assert prefixes == ["2001:db8:1::/64", "2001:db8:2::/64", "fd00:9::/64"]

    follow(netns, scenario)


def test_of_an_ipv4_subnet_the_source_of_the_route_is_used(netns: str) -> None:
    """The primary address, until a route names another one: the default route, or that of the subnet."""

    async def scenario(followed: Followed) -> None:
        followed.ip(
            *(f"addr add 192.0.2.{i}/24 dev eth0" for i in (1, 2, 3)), "addr add 192.0.2.9/32 dev eth0"
        )
        await followed.until(lambda why: "192.0.2.9" in why)
        assert eth0(followed) == ["192.0.2.1"]
        followed.ip("route change 192.0.2.0/24 dev eth0 src 192.0.2.2")
        followed.monitor.judge_again()
        assert eth0(followed) == ["192.0.2.2"]
        followed.ip("route add default via 192.0.2.99 dev eth0 src 192.0.2.9")
        followed.monitor.judge_again()
        assert eth0(followed) == ["192.0.2.9"]
        followed.ip("addr add 198.51.100.1/24 dev eth0")
        await followed.until(lambda why: why.get("198.51.100.1") == "usable")
        assert eth0(followed) == ["192.0.2.9", "198.51.100.1"]
        followed.ip("addr del 192.0.2.9/32 dev eth0")
        await followed.until(lambda why: "192.0.2.9" not in why)
        assert set(eth0(followed)) == {"192.0.2.2", "198.51.100.1"}

    follow(netns, scenario)


@pytest.mark.parametrize("prefix", ["192.0.2.1/24", "2001:db8::1/64"])
def test_an_address_on_two_interfaces_is_one(netns: str, prefix: str) -> None:
    """It is usable on one of them, and moves to the other when that one loses its carrier."""
    ip = prefix.split("/")[0]

    def usable_on(followed: Followed) -> list[str]:
        return [address.ifname for address in followed.monitor.usable if address.ip == ip]

    async def scenario(followed: Followed) -> None:
        followed.ip(
            "link add eth1 type veth peer name peer1", "link set eth1 up", "link set peer1 up",
            *(f"addr add {prefix} dev {link} {'nodad' if ':' in ip else ''}" for link in ("eth0", "eth1")),
        )  # fmt: skip
        await followed.until(
            lambda why: len([a for a in followed.monitor.addresses if a.ip == ip and a.up]) == 2
        )
        (first,) = usable_on(followed)
        other = {"eth0": "eth1", "eth1": "eth0"}[first]
        index = {a.ifname: a.ifindex for a in followed.monitor.addresses}
        assert followed.monitor.interface_of(ip) == index[first]
        followed.ip(f"link set {first.replace('eth', 'peer')} down")
        await followed.until(lambda why: usable_on(followed) == [other])
        assert followed.monitor.interface_of(ip) == index[other]

    follow(netns, scenario)


def test_rules_follow_renaming_and_reload(netns: str) -> None:
    """Globs are matched against the present name, and again when the rules change."""

    async def scenario(followed: Followed) -> None:
        followed.ip("addr add 192.0.2.1/24 dev eth0")
        await followed.until(lambda why: why.get("192.0.2.1") == "usable")
        followed.ip("link set eth0 down", "link set eth0 name wwan0", "link set wwan0 up")
        await followed.until(lambda why: why["192.0.2.1"] == "interface matches addresses.exclude")
        calls = len(followed.changes)
        followed.monitor.set_rules(Addresses(backup=("wwan*",)))
        assert [x.backup for x in followed.monitor.usable if x.ip == "192.0.2.1"] == [True]
        followed.monitor.set_rules(Addresses(backup=("wwan*",)))
        assert len(followed.changes) == calls + 1

    follow(netns, scenario, Addresses(exclude=("wwan*",)))


def test_a_removed_interface_takes_its_addresses_along(netns: str) -> None:
    """After ``ip link del`` nothing of the interface is left."""

    async def scenario(followed: Followed) -> None:
        followed.ip("addr add 192.0.2.1/24 dev eth0", "addr add 2001:db8::1/64 dev eth0 nodad")
        await followed.until(lambda why: {"192.0.2.1", "2001:db8::1"} <= set(why))
        followed.ip("link del eth0")
        await followed.until(lambda why: not {"192.0.2.1", "2001:db8::1"} & set(why))

    follow(netns, scenario)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_lost_messages_are_made_up_for_by_a_dump(
    netns: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """With a receive buffer that overflows (ENOBUFS) the addresses are right all the same, again and again.

    libuv, on which the service runs, forgets a socket that polls EPOLLERR.
    """
    addresses = [str(ipaddress.ip_address("10.0.0.0") + i) for i in range(1, 301)]

    async def scenario(followed: Followed) -> None:
        before = subscribed(netns)
        for _ in range(3):
            # Blocks the loop while the kernel sends 300 messages into a few KiB.
            followed.ip(*(f"addr add {ip}/16 dev eth0" for ip in addresses))
            await followed.until(lambda why: set(addresses) <= set(why))
            after = subscribed(netns)
            assert len(before) == len(after) == 1
            assert after != before, "it opened a new socket"
            before = after
            followed.ip(*(f"addr del {ip}/16 dev eth0" for ip in reversed(addresses)))
            await followed.until(lambda why: not set(addresses) & set(why))
            before = subscribed(netns)
        # It still follows.
        followed.ip("addr add 192.0.2.1/24 dev eth0")
        await followed.until(lambda why: why.get("192.0.2.1") == "usable")

    follow(netns, scenario, new_loop=new_loop, receive_buffer_bytes=4096)


def test_metrics_are_those_of_the_routes_to_elsewhere(netns: str) -> None:
    """By interface and family, whatever tables their sources have; unknown without such a route."""

    async def scenario(followed: Followed) -> None:
        monitor = followed.monitor

        def metrics() -> dict[str, int | None]:
            monitor.judge_again()
            return {a.ip: a.metric for a in monitor.addresses}

        v4, v6 = "192.0.2.1", "2001:db8::1"
        followed.ip(f"addr add {v4}/24 dev eth0", f"addr add {v6}/64 dev eth0 nodad")
        await followed.until(lambda why: why.get(v4) == why.get(v6) == "usable")
        assert metrics() == {v4: None, v6: None, **dict.fromkeys(set(followed.why()) - {v4, v6})}
        followed.ip(
            "route add default via 192.0.2.9 metric 70",
            "route add default via 192.0.2.8 metric 60",
            "route add default via 2001:db8::9 metric 90",
            f"rule add from {v4} table 99",
            "route add default via 192.0.2.7 table 99",
        )
        found = metrics()
        assert (found[v4], found[v6]) == (60, 90)
        changes = len(followed.changes)
        assert metrics() == found
        assert len(followed.changes) == changes
        followed.ip("route del default via 192.0.2.8", "route del default via 2001:db8::9")
        found = metrics()
        assert (found[v4], found[v6]) == (70, None)
        assert len(followed.changes) == changes + 1
        followed.ip("route replace default metric 70 nexthop via 192.0.2.9 nexthop via 192.0.2.8")
        assert metrics()[v4] == 70
        assert {a.kind for a in monitor.addresses} == {"veth"}

    follow(netns, scenario)
