# SPDX-License-Identifier: Apache-2.0
"""Sessions whose BPF program opens subflows: the service does what the program did not, and nothing twice.

A program acts in the kernel's callback, before the service has read of the event, and what it opens
is not in the session table until it is established. What the plan says about such a session waits
until nothing has happened to it for a while, and until a dump has shown what there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Protocol

from pm.clock import Clock, Scheduler
from pm.log_budget import get_limited_logger
from pm.model import token_text
from pm.policies.model import Policy
from pm.sessions.actions import Action
from pm.sessions.admission import PROGRAM_GRACE_S, BehindProgram, behind_program, done_by_programs
from pm.sessions.session import Session
from pm.sessions.timers import BATCH, TimerQueue

log = get_limited_logger()


class Programs(Protocol):
    """The programs of the bpf datapath."""

    def program_of(self, token: int, policy: Policy) -> str | None:
        """The program that opens a session's subflows; None where the service has to."""

    def claimed(self) -> Sequence[int]:
        """Tokens of all claims."""

    def release(self, token: int) -> None:
        """Forget a claim whose session has ended: its program may have gone before."""


class NoPrograms:
    """The netlink datapath: the service opens every subflow itself, at once."""

    open_subflows = False

    def note_activity(self, token: int, at: float) -> None: ...

    def forget(self, token: int) -> None: ...

    def release(self, token: int) -> None: ...

    def unknown_claims(self, known: Container[int]) -> list[int]:
        return []

    def defer_opens(self, session: Session, policy: Policy, actions: Sequence[Action]) -> Sequence[Action]:
        return actions

    def compared(self, number: int) -> None: ...


class BehindPrograms:
    """The bpf datapath."""

    open_subflows = True

    def __init__(
        self,
        *,
        programs: Programs,
        timers: TimerQueue,
        compare: Callable[[], int],
        reconcile: Callable[[int], None],
        counters: Counter[str],
        clock: Clock,
        scheduler: Scheduler,
    ) -> None:
        """``compare`` asks for a comparison of the table with the kernel, ``reconcile`` plans one token."""
        self._programs = programs
        self._timers = timers
        self._compare = compare
        self._reconcile = reconcile
        self._counters = counters
        self._clock = clock
        self._scheduler = scheduler
        self._active_at: dict[int, float] = {}
        self._awaiting: dict[int, int] = {}
        self._dump_merged: dict[int, None] = {}

    def note_activity(self, token: int, at: float) -> None:
        """Something happened to a session, at this monotonic time: its program may be about to act."""
        self._active_at[token] = at

    def forget(self, token: int) -> None:
        """The session has ended."""
        self._active_at.pop(token, None)
        self._awaiting.pop(token, None)

    def release(self, token: int) -> None:
        """The kernel does not know the session any more: its program may have gone before it."""
        self._programs.release(token)

    def unknown_claims(self, known: Container[int]) -> list[int]:
        """Tokens of claims that are not among those ``known``."""
        return [token for token in self._programs.claimed() if token not in known]

    def defer_opens(self, session: Session, policy: Policy, actions: Sequence[Action]) -> Sequence[Action]:
        """The actions to perform now. The others come up again when they are due, if they still are.

        Programs leave sessions alone whose application bound its socket to an interface.
        """
        deferrable = [action for action in actions if done_by_programs(action)]
        token = session.token
        if not deferrable or session.device or self._programs.program_of(token, policy) is None:
            return actions
        active_at = self._active_at.get(token, 0.0)
        now = self._clock.monotonic()
        match behind_program(now, active_at, dump_merged=token in self._dump_merged):
            case BehindProgram.ACT:
                self._counters["repairs"] += len(deferrable)
                log.info(
                    "repair",
                    about=token,
                    token=token_text(token),
                    policy=policy.name,
                    actions=len(deferrable),
                )
                return actions
            case BehindProgram.WAIT:
                self._timers.add(active_at + PROGRAM_GRACE_S, token)
            case BehindProgram.LOOK:
                if token not in self._awaiting:
                    self._awaiting[token] = self._compare()
        return [action for action in actions if not done_by_programs(action)]

    def compared(self, number: int) -> None:
        """A comparison is over: plan the sessions that waited for it."""
        tokens = [token for token, wanted in self._awaiting.items() if wanted <= number]
        for token in tokens:
            del self._awaiting[token]
        for first in range(0, len(tokens), BATCH):
            self._scheduler.call_soon(self._reconcile_batch, tokens[first : first + BATCH])

    def _reconcile_batch(self, tokens: Sequence[int]) -> None:
        self._dump_merged = dict.fromkeys(tokens)
        for token in tokens:
            self._reconcile(token)
        self._dump_merged = {}
