# SPDX-License-Identifier: Apache-2.0
"""Sessions between CREATED and ESTABLISHED: microseconds on a local network.

What a session opens first depends on its kind alone (policy, addresses, role). It is remembered, and
armed when the CREATED of another of that kind comes: it leaves the moment ESTABLISHED is read,
before anything is decoded or planned. The plan that follows finds it done, or corrects it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pm.clock import Moment, Scheduler, Timer
from pm.kernel import MptcpEvent
from pm.kernel_protocols import Commands
from pm.model import SubflowState, is_link_local
from pm.policies.model import Policy
from pm.sessions.actions import Open
from pm.sessions.executor import Executor, FirstOpens
from pm.sessions.policy_assignment import Classified, Selector
from pm.sessions.session import Session

ADMIT_DELAY_S = 1.0  # how long a session that is not established may be missing in the table
REMEMBERED_MAX = 4096

SessionKind = tuple[object, ...]


class PendingSession(NamedTuple):
    """CREATED was received at ``since``; the session is not in the table yet."""

    event: MptcpEvent
    since: Moment
    classified: Classified | None


class FirstSubflows:
    def __init__(
        self,
        *,
        commands: Commands,
        executor: Executor,
        selector: Selector,
        admit: Callable[[PendingSession], None],
        reserve: Callable[[int, float], bool],
        scheduler: Scheduler,
    ) -> None:
        """``admit`` takes a session into the table, when it is needed there.

        ``reserve`` says whether so many subflows may be opened at this time.
        """
        self._commands = commands
        self._executor = executor
        self._selector = selector
        self._admit = admit
        self._reserve = reserve
        self._scheduler = scheduler
        self._pending: dict[int, PendingSession] = {}
        self._armed: dict[int, FirstOpens] = {}
        self._remembered: dict[SessionKind, FirstOpens] = {}
        self._timer: Timer | None = None

    def expect(self, event: MptcpEvent, now: Moment) -> None:
        """CREATED: arm what ESTABLISHED will need; the table entry can wait."""
        found = self.classify(event)
        # Not where nobody knows yet to what the application bound its socket.
        known = found and found.device is not None
        opens = self._remembered.get(_kind_of(event, found)) if found and known else None
        if opens and self._reserve(len(opens), now.monotonic):
            self._commands.arm(event.token, [command for _, command in opens])
            self._armed[event.token] = opens
        self._pending[event.token] = PendingSession(event, now, found)
        if self._timer is None:
            self._timer = self._scheduler.call_later(ADMIT_DELAY_S, self.admit_all)

    def classify(self, event: MptcpEvent) -> Classified | None:
        return self._selector.classify(event.local, event.local_port, event.remote, event.remote_port)

    def admit(self, token: int) -> None:
        """Take a session into the table, if it is pending."""
        if pending := self._pending.pop(token, None):
            self._admit(pending)

    def admit_all(self) -> None:
        """Complete the table before somebody looks at it."""
        self.cancel()
        for token in list(self._pending):
            self.admit(token)

    def take_armed(self, token: int) -> FirstOpens | None:
        """What was armed for a session that is established now; its RawEvent has the outcomes."""
        return self._armed.pop(token, None)

    def remember(self, event: MptcpEvent, session: Session, policy: Policy) -> None:
        """Keep what a session opened that had nothing yet, for the next ones of its kind."""
        if is_link_local(event.local) or session.device is None:
            return  # it can be the same address on another link
        opens = [
            Open(s.pair, s.local_id, s.backup, policy.path_manager.name, s.ifindex)
            for s in session.subflows
            if s.state is SubflowState.OPENING
        ]
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered.clear()
        kind = _kind_of(event, Classified(policy, session.device, session.mark))
        self._remembered[kind] = tuple((o, self._executor.prepare(o)) for o in opens)

    def forget(self, token: int) -> None:
        """The session is gone, or was found established by other means than its event."""
        if self._armed.pop(token, None):
            self._commands.disarm(token)

    def disarm(self) -> None:
        """What is armed may be done already (a dump), or wrong."""
        self._armed.clear()
        self._commands.disarm()

    def forget_remembered(self) -> None:
        """Addresses, routes or policies changed: nothing remembered holds any more."""
        self._remembered.clear()
        self.disarm()

    def cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


def _kind_of(event: MptcpEvent, found: Classified) -> SessionKind:
    return (
        found.policy.name,
        found.device,
        found.mark,
        event.family,
        event.local,
        event.remote,
        event.remote_port,
        event.server_side,
        event.deny_join_id0,
    )
