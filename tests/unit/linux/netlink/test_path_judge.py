# SPDX-License-Identifier: Apache-2.0
"""Which way a subflow takes, by what the kernel's lookups say; tests/net/test_routes.py asks the real one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pm.linux.netlink.path_judge import PathJudge
from pm.linux.netlink.path_lookup import Flow, NoRoute
from pm.model import Way
from pm.policies.model import BindInterface
from tests.unit.builders import REMOTE, REMOTE_PORT, address

ETH1, TUNNEL, NOWHERE, SILENT, BLUE = 3, 9, 0, -1, 20
HERE = address("10.0.2.1", ETH1)
DUMMY = replace(address("10.0.3.1", 5), holder=True)


class Kernel:
    """Unbound packets leave by ``unbound``; bound ones by the interfaces of ``bound``."""

    def __init__(self, unbound: int, bound: set[int]) -> None:
        self.unbound, self.bound = unbound, bound

    def interface_of(self, flow: Flow) -> int:
        if self.unbound == SILENT:
            raise OSError
        if self.unbound == NOWHERE:
            raise NoRoute("EACCES")
        return self.unbound

    def try_bound(self, flow: Flow, ifindex: int) -> None:
        if ifindex not in self.bound:
            raise NoRoute("ENETUNREACH")

    def name_of(self, ifindex: int) -> str:
        return f"eth{ifindex}"

    def is_tunnel(self, ifindex: int) -> bool:
        return ifindex == TUNNEL


def way(unbound: int, *bound: int, mode: str = "auto", device: int = 0, dummy: bool = False) -> Way:
    kernel = Kernel(unbound, set(bound))
    judge = PathJudge(kernel, kernel, lambda: BindInterface(mode))
    return judge.way(DUMMY if dummy else HERE, REMOTE, REMOTE_PORT, 0, device)


@pytest.mark.parametrize("mode", ["auto", "false"])
def test_what_leaves_by_its_own_interface_is_not_bound(mode: str) -> None:
    """Nor is an address on a dummy, whose packets leave by any interface."""
    assert way(ETH1, ETH1, mode=mode) == Way()
    assert way(2, mode=mode, dummy=True) == Way()


def test_what_would_leave_elsewhere_is_bound() -> None:
    """Where there is a route over its own interface, and this is allowed."""
    assert way(2, ETH1) == Way(ETH1)
    assert way(2).why == "packets would leave by eth2: no route over eth3"
    assert way(2, ETH1, mode="false").why.startswith("packets would leave by eth2")


def test_a_tunnel_is_bypassed_only_when_told() -> None:
    """``true`` binds all."""
    assert way(TUNNEL, ETH1).why == "the route leads into the tunnel eth9, which is not bypassed"
    assert way(TUNNEL, ETH1, mode="true") == Way(ETH1)
    assert way(ETH1, ETH1, mode="true") == Way(ETH1)


def test_where_routing_says_no_nothing_is_bound() -> None:
    """A rule that prohibits is meant so. Where the kernel does not answer, the subflow is tried."""
    assert way(NOWHERE, ETH1).why == "no route (EACCES)"
    assert way(SILENT, ETH1) == Way()


@pytest.mark.parametrize("mode", ["auto", "true", "false"])
def test_a_session_that_is_bound_has_bound_subflows(mode: str) -> None:
    """To the interface of the address, or to the VRF where the address is on no link."""
    assert way(2, ETH1, device=ETH1, mode=mode) == Way(ETH1)
    assert way(2, BLUE, device=BLUE, mode=mode, dummy=True) == Way(BLUE)
    assert not way(ETH1, device=ETH1, mode=mode).exists


def test_link_local_addresses_are_always_bound() -> None:
    """Nothing is asked: they mean something on their link only."""
    kernel = Kernel(SILENT, set())
    judge = PathJudge(kernel, kernel, lambda: BindInterface.FALSE)
    assert judge.way(address("fe80::1", ETH1), "fe80::2", 1, 0, 0) == Way(ETH1)
