# SPDX-License-Identifier: Apache-2.0
"""Changes of routes and rules on the real kernel, under both event loops: the service runs on uvloop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise

import pytest
import uvloop

from pm.linux.netlink.addresses import AddressMonitor
from pm.linux.netlink.route_monitor import RouteMonitor
from pm.policies.model import Addresses
from tests.lab.commands import run
from tests.lab.netns import inside, namespace
from tests.lab.waiting import wait_for

NewLoop = Callable[[], asyncio.AbstractEventLoop]
Said = list[float]
ROUTES = 100_000
PAUSE_S = 0.05  # of the monitor in these tests
MORE_THAN_FITS = 2_000  # routes; the receive buffer holds some hundred messages

both_loops = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


@pytest.fixture
def netns() -> Iterator[str]:
    with namespace() as name:
        ip(name, "link add eth0 type veth peer name peer0", "link set eth0 up", "link set peer0 up")
        ip(name, "addr add 192.0.2.1/24 dev eth0", "addr add 2001:db8::1/64 dev eth0 nodad")
        yield name


def ip(netns: str, *lines: str) -> None:
    run("ip", "-n", netns, "-batch", "-", input="\n".join(lines))


def routes(command: str, count: int, family: int = 4) -> list[str]:
    """Lines that add or delete ``count`` routes."""
    if family == 4:
        return [f"route {command} 10.{i >> 16}.{i >> 8 & 255}.{i & 255}/32 dev eth0" for i in range(count)]
    return [f"route {command} fd00::{i >> 16:x}:{i & 0xFFFF:x}/128 dev eth0" for i in range(count)]


def follow(
    netns: str, new_loop: NewLoop, scenario: Callable[[Said], Awaitable[None]], pause_s: float = PAUSE_S
) -> None:
    """Run a scenario with the times of the monitor's calls."""

    async def main() -> None:
        said: Said = []
        async with RouteMonitor.open(lambda: said.append(time.monotonic()), pause_s=pause_s):
            await scenario(said)

    def run_loop() -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())

    inside(netns, run_loop)


async def until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_for, condition, what)


async def told_since(said: Said, moment: float) -> None:
    await until(lambda: bool(said) and said[-1] > moment, "a call of the monitor")


async def quiet(said: Said, pause_s: float = PAUSE_S) -> None:
    """Wait for pauses without a call: the kernel has nothing more to tell, and the monitor listens again."""
    started = time.monotonic()
    await until(lambda: time.monotonic() - max([started, *said]) > 4 * pause_s, "no call for four pauses")


@both_loops
@pytest.mark.parametrize(
    "line",
    [
        *("route add 198.51.100.0/24 dev eth0", "route add 2001:db8:1::/64 dev eth0"),
        *("route del 192.0.2.0/24 dev eth0", "-6 route del 2001:db8::/64 dev eth0"),
        *("route add blackhole 198.51.100.0/24", "route add 198.51.100.0/24 dev eth0 table 7000"),
        *("rule add from 192.0.2.1 table 100", "-6 rule add from 2001:db8::1 table 100"),
        *("rule del pref 32767", "-6 rule del pref 32766"),
        *("nexthop add id 7 via 192.0.2.9 dev eth0", "nexthop add id 7 via 2001:db8::9 dev eth0"),
    ],
)
def test_a_change_is_told(netns: str, new_loop: NewLoop, line: str) -> None:
    """Routes, rules and nexthops of both families, in any table."""

    async def scenario(said: Said) -> None:
        await quiet(said)
        changed = time.monotonic()
        run("ip", "-n", netns, *line.split())
        await told_since(said, changed)

    follow(netns, new_loop, scenario)


@both_loops
def test_what_is_no_route_is_not_told(netns: str, new_loop: NewLoop) -> None:
    """A neighbour, or an interface without addresses, changes no route; the route after them is one call."""

    async def scenario(said: Said) -> None:
        await quiet(said)
        before = len(said)
        other = "neigh add 192.0.2.9 lladdr 02:00:00:00:00:01 dev eth0", "link add x0 type ifb"
        await asyncio.to_thread(ip, netns, *other)
        await asyncio.to_thread(ip, netns, "route add 198.51.100.0/24 dev eth0")
        await quiet(said)
        assert len(said) == before + 1

    follow(netns, new_loop, scenario)


@both_loops
@pytest.mark.parametrize("family", [4, 6])
def test_a_full_table_is_told_at_most_once_per_pause(netns: str, new_loop: NewLoop, family: int) -> None:
    """100,000 routes: the first change at once, then one call per pause, and one after the last change."""
    pause_s = 0.2

    async def scenario(said: Said) -> None:
        await quiet(said, pause_s)
        before = len(said)
        started = time.monotonic()
        await asyncio.to_thread(ip, netns, *routes("add", ROUTES, family))
        last = time.monotonic()
        await asyncio.to_thread(ip, netns, "route add 198.51.100.0/24 dev eth0")
        await told_since(said, last)
        told = said[before:]
        assert all(later - earlier >= pause_s * 0.9 for earlier, later in pairwise(told))
        assert len(told) <= (time.monotonic() - started) / pause_s + 2

    follow(netns, new_loop, scenario, pause_s)


@both_loops
def test_an_overrun_leaves_the_monitor_listening(netns: str, new_loop: NewLoop) -> None:
    """More changes than the receive buffer holds while the loop is blocked (ENOBUFS), and again during the
    pause: each is told, and so is a single route after them.
    """

    async def scenario(said: Said) -> None:
        for command in ("add", "del", "add"):
            await quiet(said)
            changed = time.monotonic()
            ip(netns, *routes(command, MORE_THAN_FITS))  # blocks the loop
            await told_since(said, changed)
            changed = time.monotonic()
            ip(netns, *routes("replace", MORE_THAN_FITS, 6))  # during the pause
            await told_since(said, changed)
        for i in range(3):
            await quiet(said)
            changed = time.monotonic()
            ip(netns, f"route add 198.51.100.{i}/32 dev eth0")
            await told_since(said, changed)

    follow(netns, new_loop, scenario)


@both_loops
def test_a_flood_of_routes_costs_no_address_event(netns: str, new_loop: NewLoop) -> None:
    """The addresses have a socket of their own: it does not overrun, and the change is known at once."""

    async def scenario(said: Said) -> None:
        async with AddressMonitor.open(Addresses(), lambda found: None) as monitor:
            subscribed = monitor._socket
            ip(netns, *routes("add", MORE_THAN_FITS), "addr add 198.51.100.1/24 dev eth0")
            await until(lambda: "198.51.100.1" in [a.ip for a in monitor.addresses], "the address")
            assert monitor._socket is subscribed

    follow(netns, new_loop, scenario)


def test_a_monitor_that_is_closed_in_its_pause_is_silent(netns: str) -> None:
    """Its timer ends with it."""
    said: Said = []

    async def main() -> None:
        async with RouteMonitor.open(lambda: said.append(time.monotonic()), pause_s=PAUSE_S):
            ip(netns, "route add 198.51.100.1/32 dev eth0")
            await until(lambda: bool(said), "a call")
        ip(netns, "route add 198.51.100.2/32 dev eth0")
        before = len(said)
        await quiet(said)
        assert len(said) == before

    inside(netns, lambda: asyncio.run(main()))
