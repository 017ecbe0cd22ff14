# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pm.model import Subflow
from pm.sessions.subflows import SCANNED_MAX, Subflows
from tests.unit.builders import REMOTE, REMOTE_PORT, subflow

A = "10.0.1.1"


class Counted(str):
    """An address that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__eq__(other)

    __hash__ = str.__hash__


def test_finding_is_not_slower_with_many() -> None:
    """9,000 joins of a peer once blocked the event loop for 11.9 s: each was compared with all others."""
    subflows = Subflows()
    for port in range(9000):
        assert subflows.find(A, 10_000 + port, REMOTE, REMOTE_PORT) is None
        subflows.append(subflow(A, Counted(REMOTE), local_port=10_000 + port))
    for port in range(9000):
        found = subflows.find(A, 10_000 + port, Counted(REMOTE), REMOTE_PORT)
        assert found
        assert found.local_port == 10_000 + port
    assert Counted.compared < 9000 * 20


# What happens to subflows of two pairs: one begins to open or comes with its port, learns its port, ends.
steps = st.lists(
    st.tuples(st.sampled_from(["open", "join", "port", "end"]), st.integers(0, 63)),
    min_size=SCANNED_MAX,
    max_size=4 * SCANNED_MAX,
)


@given(steps)
def test_index_agrees_with_the_list(steps: list[tuple[str, int]]) -> None:
    """Whatever happens, on both sides of the length from which there is an index; by identity."""
    subflows, port = Subflows(), 20_000
    for step, number in steps:
        port += 1
        opening = [s for s in subflows if not s.local_port]
        if step == "open":
            subflows.append(subflow(f"10.0.{number % 2}.1", local_port=0))
        elif step == "join":
            subflows.append(subflow(f"10.0.{number % 2}.1", local_port=port))
        elif step == "port" and opening:
            subflows.learn_port(opening[number % len(opening)], port)
        elif step == "end" and subflows:
            gone = subflows[number % len(subflows)]
            subflows.remove(gone)
            assert all(s is not gone for s in subflows)
        for local in ("10.0.0.1", "10.0.1.1"):
            check_opening(subflows, local)
        for known in subflows:
            if known.local_port:
                assert subflows.find(known.local, known.local_port, REMOTE, REMOTE_PORT) is known


def check_opening(subflows: Subflows, local: str) -> None:
    expected: list[Subflow] = [s for s in subflows if not s.local_port and s.local == local]
    found = subflows.find(local, 0, REMOTE, REMOTE_PORT)
    assert (found in expected) if expected else found is None
