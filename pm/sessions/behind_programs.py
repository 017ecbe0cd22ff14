# SPDX-License-Identifier: GPL-2.0-only
"""Behind programs that open subflows themselves: the service does what they did not, and nothing twice.

A program acts in the kernel's callback, before the service has read of the event, and what it opens
is not in the session table until it is established. So what the plan says about such a session waits
until nothing happened to it for a while, and until a dump has shown what is there.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Protocol

import structlog

from pm.policies.model import Policy
from pm.sessions.actions import Action, Open, SetBackup
from pm.sessions.session import Session
from pm.sessions.timers import BATCH, Agenda

GRACE_S = 1.0

log = structlog.get_logger(__name__)


class Programs(Protocol):
    """The programs of the bpf datapath."""

    def program_of(self, token: int, policy: Policy) -> str | None:
        """The program that opens a session's subflows; None where the service has to."""

    def claimed(self) -> Sequence[int]:
        """Tokens of all claims."""

    def release(self, token: int) -> None:
        """Forget a claim whose session has ended: its program may have gone before."""


class Repair:
    def __init__(
        self,
        *,
        programs: Programs,
        agenda: Agenda,
        merge_dump: Callable[[], None],
        reconcile: Callable[[int], None],
        counters: Counter[str],
    ) -> None:
        """``merge_dump`` makes the session table agree with the kernel, ``reconcile`` plans one token."""
        self._programs = programs
        self._agenda = agenda
        self._merge_dump = merge_dump
        self._reconcile = reconcile
        self._counters = counters
        self._touched: dict[int, float] = {}
        self._doubtful: dict[int, None] = {}
        self._confirmed: dict[int, None] = {}
        self._timer: asyncio.Handle | None = None
        self._loop = asyncio.get_running_loop()

    def touch(self, token: int) -> None:
        """Something happened to a session: its program may be about to act."""
        self._touched[token] = time.monotonic()

    def forget(self, token: int) -> None:
        """The session has ended."""
        self._touched.pop(token, None)
        self._programs.release(token)

    def unknown_claims(self, known: Container[int]) -> list[int]:
        """Tokens of claims that are not among those ``known``."""
        return [token for token in self._programs.claimed() if token not in known]

    def cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def sift(self, session: Session, policy: Policy, actions: Sequence[Action]) -> Sequence[Action]:
        """The actions to perform now. The others come up again when they are due, if they still are."""
        theirs = [a for a in actions if isinstance(a, Open | SetBackup)]
        if not theirs or self._programs.program_of(session.token, policy) is None:
            return actions
        quiet_at = self._touched.get(session.token, 0.0) + GRACE_S
        if time.monotonic() < quiet_at:
            self._agenda.add(quiet_at, session.token)
        elif session.token in self._confirmed:
            self._counters["repairs"] += len(theirs)
            log.info("repair", token=f"{session.token:#010x}", policy=policy.name, actions=len(theirs))
            return actions
        else:
            self._doubtful[session.token] = None
            self._timer = self._timer or self._loop.call_soon(self._confirm)
        return [a for a in actions if not isinstance(a, Open | SetBackup)]

    def _confirm(self) -> None:
        self._timer = None
        tokens, self._doubtful = list(self._doubtful), {}
        self._merge_dump()
        for first in range(0, len(tokens), BATCH):
            self._loop.call_soon(self._reconcile_confirmed, tokens[first : first + BATCH])

    def _reconcile_confirmed(self, tokens: Sequence[int]) -> None:
        self._confirmed = dict.fromkeys(tokens)
        for token in tokens:
            self._reconcile(token)
        self._confirmed = {}
