# SPDX-License-Identifier: Apache-2.0
"""Bytes are added up once, in one place, and sums never fall."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pm.interfaces import UNKNOWN, Interfaces
from pm.model import Figures
from pm.sessions import ledger as ledger_module
from pm.sessions.ledger import Account, Ledger
from pm.sessions.traffic import Traffic
from tests.unit.builders import address, policy, session

LOCAL = "10.0.1.1"


def named(ledger: Ledger) -> dict[str, Traffic]:
    """What was carried, by the name that shows the interface."""
    carried, found = ledger.by_interface(), {}
    for name, interfaces in ledger.interfaces.by_name(carried).items():
        found[name] = Traffic()
        for interface in interfaces:
            found[name].add_all(carried[interface])
    return found


def test_each_look_adds_what_is_new() -> None:
    """By policy and interface; the session has the same sum."""
    ledger, one = Ledger(), session(policy=policy())
    ledger.set_addresses([address(LOCAL, 3)])
    (subflow,) = one.subflows
    ledger.note(one, subflow, Figures(100, 10, 1))
    ledger.note(one, subflow, Figures(150, 30, 1))
    assert ledger.accounts() == {Account("p", subflow.interface): Traffic(150, 30, 1)}
    assert named(ledger) == {"eth3": Traffic(150, 30, 1)}
    assert ledger.by_policy() == {"p": Traffic(150, 30, 1)}
    assert one.carried == Traffic(150, 30, 1)


def test_what_was_carried_before_the_service_came_counts_for_the_session_alone() -> None:
    """Counters are since the start of the service."""
    ledger, one = Ledger(), session()
    (subflow,) = one.subflows
    ledger.adopt(one, subflow, Figures(1000, 1000))
    ledger.note(one, subflow, Figures(1001, 1002))
    assert one.carried == Traffic(1001, 1002)
    assert ledger.by_policy() == {None: Traffic(1, 2)}


def test_an_address_that_moves_or_goes() -> None:
    """A subflow stays with the interface that it was first seen on."""
    ledger, one = Ledger(), session()
    (subflow,) = one.subflows
    assert ledger.interface_of(subflow) is UNKNOWN
    ledger.set_addresses([address(LOCAL, 3)])
    ledger.note(one, subflow, Figures(1, 1))
    ledger.set_addresses([])
    other = session(token=2)
    assert ledger.interface_of(other.subflows[0]).name == "eth3"
    ledger.set_addresses([address(LOCAL, 4)])
    ledger.note(one, subflow, Figures(5, 5))
    assert named(ledger) == {"eth3": Traffic(5, 5)}


def test_interfaces_that_change_their_names() -> None:
    """What each has carried goes with it, also where they have each other's names now."""
    ledger = Ledger()
    one, other = session(token=1), session(token=2, local="10.0.2.1")
    addresses = [address(LOCAL, 3), address("10.0.2.1", 4)]
    ledger.set_addresses(addresses)
    ledger.note(one, one.subflows[0], Figures(1, 1))
    ledger.note(other, other.subflows[0], Figures(5, 5))
    ledger.set_addresses([replace(addresses[0], ifname="eth4"), replace(addresses[1], ifname="eth3")])
    assert named(ledger) == {"eth4": Traffic(1, 1), "eth3": Traffic(5, 5)}
    ledger.set_addresses([replace(addresses[0], ifname="wan")])
    assert named(ledger) == {"wan": Traffic(1, 1), "eth3": Traffic(5, 5)}
    assert ledger.interface_of(session(token=3).subflows[0]).name == "wan"


@pytest.mark.parametrize(("index", "name"), [(9, "eth3"), (3, "wan"), (3, "eth3")])
def test_an_interface_that_takes_the_place_of_one_that_is_gone(index: int, name: str) -> None:
    """It has its name, its index or both, and nothing of what the other has carried."""
    interfaces = Interfaces()
    ledger, one = Ledger(interfaces), session(token=1)
    ledger.set_addresses([address(LOCAL, 3)])
    ledger.note(one, one.subflows[0], Figures(1, 1))
    interfaces.gone(3)
    assert ledger.set_addresses([replace(address(LOCAL, index), ifname=name)])
    other = session(token=2)
    ledger.note(other, other.subflows[0], Figures(5, 5))
    former = "eth3 (gone)" if name == "eth3" else "eth3"
    assert named(ledger) == {former: Traffic(1, 1), name: Traffic(5, 5)}
    ledger.note(one, one.subflows[0], Figures(2, 2))  # the last figures of one that has ended
    assert named(ledger) == {former: Traffic(2, 2), name: Traffic(5, 5)}
    ledger.move(one.subflows[0])
    ledger.note(one, one.subflows[0], Figures(4, 4))
    assert named(ledger) == {former: Traffic(2, 2), name: Traffic(7, 7)}


def test_interfaces_that_are_made_anew_for_ever() -> None:
    """A dialled-up line has another index each time: the live one always has an account of its own."""
    interfaces = Interfaces()
    ledger = Ledger(interfaces)
    for index in range(1, 2 * ledger_module.ACCOUNTS_MAX):
        ledger.set_addresses([replace(address(LOCAL, index), ifname="ppp0")])
        one = session(token=index)
        ledger.note(one, one.subflows[0], Figures(1, 1))
        assert named(ledger)["ppp0"] == Traffic(1, 1)
        interfaces.gone(index)
    assert named(ledger) == {"ppp0": Traffic(index, index)}
    assert len(ledger.accounts()) <= ledger_module.ACCOUNTS_MAX
    assert ledger.merged == 1


def test_accounts_are_bounded() -> None:
    """Interfaces come and go: those that are too many are added up."""
    ledger = Ledger()
    numbers = range(1, ledger_module.ACCOUNTS_MAX + 11)
    ledger.set_addresses([address(f"10.{n // 250}.{n % 250}.1", n) for n in numbers])
    for n in numbers:
        one = session(token=n, local=f"10.{n // 250}.{n % 250}.1")
        ledger.note(one, one.subflows[0], Figures(1, 1))
    assert len(ledger.accounts()) == ledger_module.ACCOUNTS_MAX + 1
    assert named(ledger)[ledger_module.OTHERS] == Traffic(10, 10)


@given(
    st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 1000)), max_size=20)
)
def test_sums_never_fall(looks: list[tuple[int, int, int]]) -> None:
    """Whatever the kernel shows, another socket on the same ports too."""
    ledger, one = Ledger(), session()
    before = (0, 0, 0)
    for look in looks:
        ledger.note(one, one.subflows[0], Figures(*look))
        after = (one.carried.bytes_acked, one.carried.bytes_received, one.carried.retransmits)
        assert all(a >= b for a, b in zip(after, before, strict=True))
        assert after == one.subflows[0].figures[:3]
        before = after
