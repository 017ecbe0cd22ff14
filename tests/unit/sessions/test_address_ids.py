# SPDX-License-Identifier: Apache-2.0
"""Address ids: the service's own, and those that programs in the kernel gave."""

from __future__ import annotations

from pm.sessions.address_ids import LAST_ID, AddressIds


def test_ids_of_programs_are_adopted() -> None:
    """An address has the id that a program gave it; whoever had that id gets another."""
    ids = AddressIds({"10.0.1.1": 1, "10.0.2.1": 2})
    ids.adopt({"10.0.2.1": 241, "10.0.3.1": 1})
    assert ids.by_ip == {"10.0.2.1": 241, "10.0.3.1": 1}
    assert ids.allocate("10.0.1.1", ()) == 2


def test_the_service_leaves_room_for_programs() -> None:
    """It never gives an id that a program may give."""
    ips = [f"10.0.{i}.1" for i in range(LAST_ID + 5)]
    ids = AddressIds({})
    given = [ids.allocate(ip, ips) for ip in ips]
    assert given == [*range(1, LAST_ID + 1), *[None] * 5]
