# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pm.interfaces import Interfaces


def test_an_interface_is_one_as_long_as_it_lives() -> None:
    """Its name may change; with its index alone another one is not it."""
    interfaces = Interfaces()
    first = interfaces.seen(3, "eth1")
    assert interfaces.seen(3, "wan") is first
    assert first.name == "wan"
    interfaces.gone(3)
    interfaces.gone(4)  # never seen: nobody knew it
    assert (first.gone, interfaces.deleted) == (True, 1)
    second = interfaces.seen(3, "wan")
    assert second is not first
    assert not second.gone


def test_what_a_dump_does_not_have_is_gone() -> None:
    """Messages were lost, and the interfaces were read again."""
    interfaces = Interfaces()
    kept, lost = interfaces.seen(1, "lo"), interfaces.seen(2, "eth0")
    interfaces.only({1, 3})
    assert (kept.gone, lost.gone) == (False, True)


def test_names_are_told_apart() -> None:
    """The one that has a name now has it alone; those that had it are one, and it says that they are gone."""
    interfaces = Interfaces()
    former = []
    for index in (5, 6):
        former.append(interfaces.seen(index, "eth1"))
        interfaces.gone(index)
    assert interfaces.by_name(former) == {"eth1": former}
    new, other = interfaces.seen(7, "eth1"), interfaces.seen(8, "eth2")
    assert interfaces.by_name([*former, new, other]) == {
        "eth1 (gone)": former,
        "eth1": [new],
        "eth2": [other],
    }
    assert interfaces.by_name(former) == {"eth1 (gone)": former}
