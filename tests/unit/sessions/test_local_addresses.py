# SPDX-License-Identifier: Apache-2.0
"""Which local addresses are lost, and which this host never had on an interface."""

from __future__ import annotations

from collections.abc import Sequence

from pm.sessions.address_ids import AddressIds
from pm.sessions.known_ways import Routes, anywhere
from pm.sessions.local_addresses import SEEN_MAX, AddressBook
from tests.unit.builders import address

A, B, ANYIP = "10.0.1.1", "10.0.2.1", "192.0.2.1"


def book(*, local: Sequence[str] = (), seen_up: Sequence[str] = ()) -> AddressBook:
    """``local`` are addresses that the kernel routes as local."""
    return AddressBook(
        AddressIds({}),
        is_local=lambda ip: ip in local,
        seen_up=seen_up,
        on_change=lambda: None,
        routes=Routes(anywhere),
    )


def test_seen_up_and_then_down_or_gone_is_lost() -> None:
    """And up again it is not."""
    addresses = book(local=[A, B])
    addresses.update([address(A), address(B, 3)])
    changes = addresses.update([address(A), address(B, 3, up=False)])
    assert B in addresses.current.lost
    assert (changes.lost, changes.returned) == (frozenset({B}), frozenset())
    addresses.update([address(A)])
    assert B in addresses.current.lost
    changes = addresses.update([address(A), address(B, 3)])
    assert B not in addresses.current.lost
    assert changes.returned == {B}


def test_never_seen_up_is_not_lost() -> None:
    """On a down interface, or on none and routed as local (AnyIP): no run saw it up."""
    addresses = book(local=[ANYIP])
    addresses.update([address(A), address(B, 3, up=False)])
    assert B not in addresses.current.lost
    assert ANYIP not in addresses.current.lost


def test_down_now_and_seen_up_by_an_earlier_run_is_lost() -> None:
    """The note of that run tells it."""
    addresses = book(seen_up=[B])
    addresses.update([address(A), address(B, 3, up=False)])
    assert B in addresses.current.lost


def test_routed_as_local_no_more_is_lost() -> None:
    """The kernel is asked again when routes have changed, not before."""
    local = [ANYIP]
    addresses = book(local=local)
    addresses.update([address(A)])
    assert ANYIP not in addresses.current.lost
    local.clear()
    assert ANYIP not in addresses.current.lost
    addresses.ask_again()
    assert ANYIP in addresses.current.lost


def test_addresses_seen_up_are_bounded() -> None:
    """Privacy addresses come and go for years: the oldest are forgotten, never one that is there."""
    addresses = book()
    for i in range(SEEN_MAX + 50):
        addresses.update([address(A), address(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 3)])
    assert len(addresses.seen_up) <= SEEN_MAX + 2
    assert A in addresses.seen_up
    assert "10.0.0.1" not in addresses.seen_up
