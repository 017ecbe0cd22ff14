# SPDX-License-Identifier: Apache-2.0
"""What may happen now, and when it may otherwise."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from pm.model import Origin, Subflow, SubflowState
from pm.policies.model import Accept, Start
from pm.sessions.admission import (
    PROGRAM_GRACE_S,
    THRESHOLD_POLL_CAP_S,
    THRESHOLD_POLL_S,
    BehindProgram,
    behind_program,
    refusal,
    wait_for_age,
    wait_for_bytes,
)
from tests.unit.builders import policy


def join(remote: str, state: SubflowState = SubflowState.ESTABLISHED) -> Subflow:
    return Subflow("10.0.1.2", 80, remote, 4000, Origin.PEER, state)


@pytest.mark.parametrize(("age_s", "wait_s"), [(0.0, 2.0), (1.5, 0.5), (2.0, 0.0), (9.0, 0.0)])
def test_age_of_a_start(age_s: float, wait_s: float) -> None:
    """What is left until `after`; nothing once it is reached."""
    assert wait_for_age(Start(after=2.0), age_s) == wait_s


def test_bytes_of_a_start() -> None:
    """Looked at often at first and less often as the session ages; not at all once they are reached."""
    start = Start(after_bytes=1000)
    assert wait_for_bytes(start, 0.0, 999) == THRESHOLD_POLL_S
    assert wait_for_bytes(start, 8.0, 0) == 2.0
    assert wait_for_bytes(start, 1e6, 0) == THRESHOLD_POLL_CAP_S
    assert wait_for_bytes(start, 0.0, 1000) == 0.0


def test_joins_from_elsewhere_are_refused() -> None:
    """A prefix of one family says nothing of the other: what no prefix contains is refused."""
    both = policy(accept=Accept(from_=(ip_network("10.0.0.0/8"), ip_network("fd00::/8"))))
    assert refusal(both, join("10.9.9.9"), []) == ""
    assert refusal(both, join("fd00::9"), []) == ""
    assert "prefix" in refusal(both, join("192.0.2.1"), [])
    ip4_only = policy(accept=Accept(from_=(ip_network("10.0.0.0/8"),)))
    assert "prefix" in refusal(ip4_only, join("fd00::9"), [])
    assert "prefix" in refusal(policy(accept=Accept(from_=())), join("10.9.9.9"), [])


def test_joins_above_the_limit_are_refused() -> None:
    """Established subflows count, the join among them; those that are opening do not."""
    two = policy(accept=Accept(max_subflows=2))
    there = [join("10.0.0.1"), join("10.0.0.2"), join("10.0.0.3", SubflowState.OPENING)]
    assert refusal(two, there[1], there) == ""
    assert "more than 2" in refusal(two, there[1], [*there, join("10.0.0.4")])


@pytest.mark.parametrize(
    ("path_manager", "parameters", "limit"),
    [
        ("none", {}, 8),
        ("backup", {}, 8),
        ("ndiffports", {"subflows": 3}, 8),
        ("ndiffports", {"subflows": 20}, 20),
        ("fullmesh", {"max_subflows": 64}, 64),
    ],
)
def test_joins_are_limited_by_default(path_manager: str, parameters: dict[str, int], limit: int) -> None:
    """By 8, or by what the policy's own path manager may open."""
    chosen = policy(path_manager, parameters)
    there = [join(f"10.0.0.{i}") for i in range(limit)]
    assert refusal(chosen, there[-1], there) == ""
    assert f"more than {limit}" in refusal(chosen, there[-1], [*there, join("10.0.1.1")])


def test_the_service_acts_behind_a_program_only_after_a_dump() -> None:
    """First the program's time, then a look at what it did, then what it did not do."""
    at = 100.0
    quiet = at + PROGRAM_GRACE_S
    assert behind_program(at, at, dump_merged=False) is BehindProgram.WAIT
    assert behind_program(at + PROGRAM_GRACE_S / 2, at, dump_merged=True) is BehindProgram.WAIT
    assert behind_program(quiet, at, dump_merged=False) is BehindProgram.LOOK
    assert behind_program(quiet, at, dump_merged=True) is BehindProgram.ACT
