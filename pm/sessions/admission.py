# SPDX-License-Identifier: Apache-2.0
"""What may happen now, and when it may otherwise: starting, joins of the peer, programs. Pure.

Durations are seconds; points in time are on the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from ipaddress import ip_address

from pm.model import Subflow, SubflowState
from pm.policies.model import Policy, Start
from pm.sessions.actions import Action, Open, SetBackup

THRESHOLD_POLL_S = 0.1  # how often `after_bytes` is looked at first; less often as a session ages
THRESHOLD_POLL_CAP_S = 5.0
PROGRAM_GRACE_S = 1.0  # a program has acted by then, whatever it reacted to


def wait_for_age(start: Start, age_s: float) -> float:
    """Seconds until a session of this age reaches ``start.after``; 0.0 if it has."""
    return max(0.0, start.after - age_s)


def wait_for_bytes(start: Start, age_s: float, moved: int) -> float:
    """Seconds until the bytes are looked at again; 0.0 if ``start.after_bytes`` is reached."""
    if moved >= start.after_bytes:
        return 0.0
    return min(max(age_s / 4, THRESHOLD_POLL_S), THRESHOLD_POLL_CAP_S)


def refusal(policy: Policy, join: Subflow, subflows: Sequence[Subflow]) -> str:
    """Why the policy refuses a join of the peer, "" if it does not; ``subflows`` include the join."""
    reason, prefixes, limit = "", policy.accept.from_, policy.accept_limit
    if prefixes is not None:
        address = ip_address(join.remote)
        if not any(address in prefix for prefix in prefixes if prefix.version == address.version):
            reason = "refused: not from an accepted prefix"
    if len(subflows) > limit and sum(s.state is SubflowState.ESTABLISHED for s in subflows) > limit:
        reason = f"refused: more than {limit} subflows"
    return reason


class BehindProgram(Enum):
    """What the service does with a plan for a session whose BPF program opens the subflows."""

    WAIT = "wait"  # something happened to the session: the program may be about to act
    LOOK = "look"  # the program has had its time: a dump shows what it did
    ACT = "act"  # the dump has been merged, and the plan still has actions


def behind_program(now: float, active_at: float, *, dump_merged: bool) -> BehindProgram:
    """``active_at``: when something last happened to the session."""
    if now < active_at + PROGRAM_GRACE_S:
        return BehindProgram.WAIT
    return BehindProgram.ACT if dump_merged else BehindProgram.LOOK


def done_by_programs(action: Action) -> bool:
    """Whether a path manager's program performs such actions itself."""
    return isinstance(action, Open | SetBackup)
