# SPDX-License-Identifier: Apache-2.0
"""What is asked about routes, how often, and who hears of it."""

from __future__ import annotations

from pm.model import LocalAddress, Way
from pm.sessions import known_ways
from pm.sessions.known_ways import Destination, Routes, Ways
from tests.unit.builders import address

A, B, V6 = address("10.0.1.1", 2), address("10.0.2.1", 3), address("fd00::1", 2)
THERE = Destination("10.0.9.1", 5201)


class Kernel:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = Way()
        self.told: dict[Destination, Ways | None] = {}
        self.routes = Routes(self.judge, self.told.__setitem__)
        self.routes.set_addresses((A, B, V6))

    def judge(self, local: LocalAddress, remote: str, remote_port: int, mark: int, device: int) -> Way:
        self.asked.append(local.ip)
        return self.answer


def test_the_kernel_is_asked_once_until_routes_change() -> None:
    """About addresses of the family only; and only another answer is news."""
    kernel = Kernel()
    for _ in range(3):
        assert kernel.routes.ways_to(THERE) == {A.ip: Way(), B.ip: Way()}
    assert kernel.asked == [A.ip, B.ip]
    assert not kernel.routes.take_changed()
    kernel.routes.ask_again()
    assert kernel.routes.outdated() == [THERE]
    kernel.routes.ways_to(THERE)
    assert (kernel.routes.outdated(), kernel.routes.take_changed()) == ([], False)
    kernel.answer = Way(why="no route")
    kernel.routes.ask_again()
    kernel.routes.ways_to(THERE)
    assert kernel.told[THERE] == {A.ip: kernel.answer, B.ip: kernel.answer}
    assert (kernel.routes.take_changed(), kernel.routes.take_changed()) == (True, False)


def test_marks_and_devices_are_destinations_of_their_own() -> None:
    """A rule can send each of them elsewhere."""
    kernel = Kernel()
    for destination in (THERE, THERE._replace(mark=1), THERE._replace(device=2)):
        kernel.routes.ways_to(destination)
    assert len(kernel.told) == 3


def test_peers_cannot_fill_the_memory() -> None:
    """The oldest destination is forgotten, and whoever wrote it down hears of that."""
    kernel = Kernel()
    for port in range(known_ways.DESTINATIONS_MAX + 2):
        kernel.routes.ways_to(THERE._replace(remote_port=port))
    assert [d.remote_port for d, ways in kernel.told.items() if ways is None] == [0, 1]
