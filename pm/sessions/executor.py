# SPDX-License-Identifier: Apache-2.0
"""Performs actions: the one place that changes the kernel's subflows, and that records what it did."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from pm.clock import Clock, Moment, moment
from pm.errors import KernelRefused
from pm.kernel import CreateCommand, TcpState
from pm.kernel_protocols import Commands, Diagnosis
from pm.log_budget import get_limited_logger
from pm.model import Origin, token_text
from pm.sessions.actions import KINDS, Action, ActionKind, Announce, Close, Open, SetBackup, Withdraw
from pm.sessions.failures import forget_refusal, note_failure, note_refusal
from pm.sessions.history import HistoryEvent
from pm.sessions.session import FailureKind, Session
from pm.sessions.session_table import SessionTable

NOT_OURS = "userspace PM not selected"  # the kernel's word for a session of its own path manager

log = get_limited_logger()


class Publish(Protocol):
    """Tells the watchers of the service. ``time`` is seconds since the epoch."""

    def __call__(
        self, time: float, kind: str, action: str, session: Session, detail: dict[str, Any], /
    ) -> None: ...


FirstOpens = tuple[tuple[Open, CreateCommand], ...]


class Executor:
    """``counters`` has every ``ActionKind``, and its ``refused`` word."""

    def __init__(
        self,
        *,
        table: SessionTable,
        commands: Commands,
        diagnosis: Diagnosis,
        publish: Publish,
        counters: Counter[str],
        clock: Clock,
    ) -> None:
        self._table = table
        self._commands = commands
        self._diagnosis = diagnosis
        self._publish = publish
        self._counters = counters
        self._clock = clock

    def perform(
        self, session: Session, action: Action, origin: Origin = Origin.POLICY
    ) -> KernelRefused | None:
        """Execute one action; the kernel's refusal is recorded and returned.

        So is an action that fails in any other way. A refused ``Open`` is noted in ``session.retries``
        with the time of the next try.
        """
        now = moment(self._clock)
        kind = KINDS[type(action)]
        try:
            self._execute(session, action, origin, now)
        except KernelRefused as e:
            self._counters[kind.refused] += 1
            self._refused(session, action, e, now)
            return e
        except Exception as e:  # it must not end the sessions of all others, whoever asked for it
            log.exception("action_failed", token=token_text(session.token), action=kind.value)
            self._counters[kind.refused] += 1
            failure = KernelRefused(kind.value, errno.EINVAL, f"{type(e).__name__}: {e}")
            self._refused(session, action, failure, now)
            return failure
        self._counters[kind] += 1
        return None

    def prepare(self, action: Open) -> CreateCommand:
        """The command of ``action``, to be armed or sent."""
        pair = action.pair
        return self._commands.prepare_subflow(
            pair.local,
            action.local_id,
            pair.remote,
            pair.remote_port,
            backup=action.backup,
            ifindex=action.ifindex,
        )

    def record(self, session: Session, opens: FirstOpens, outcomes: Sequence[KernelRefused | None]) -> None:
        """Note what became of opens that were armed."""
        now = moment(self._clock)
        for (action, _), refused in zip(opens, outcomes, strict=True):
            if refused:
                self._counters[ActionKind.OPEN.refused] += 1
                if session.managed and not session.half_closed:  # else the first of them has told it
                    self._refused(session, action, refused, now)
            else:
                self._counters[ActionKind.OPEN] += 1
                self._table.subflow_opening(session, action, Origin.POLICY, now)

    def _execute(self, session: Session, action: Action, origin: Origin, now: Moment) -> None:
        token, commands = session.token, self._commands
        match action:
            case Open():
                commands.create_subflow(token, self.prepare(action))
                self._table.subflow_opening(session, action, origin, now)
            case Close(subflow, reason):
                try:
                    commands.destroy_subflow(
                        token,
                        subflow.local,
                        subflow.local_port,
                        subflow.remote,
                        subflow.remote_port,
                        socket_family=subflow.socket_family,
                    )
                except KernelRefused as e:
                    if e.errno != errno.ESRCH:  # gone already
                        raise
                self._table.remove_subflow(session, subflow, reason, now)
                session.history.add(now, HistoryEvent.SUBFLOW_CLOSED, f"{subflow.pair}: {reason}")
                self._publish(
                    now.time, "subflow", "closed", session, {"subflow": subflow.id, "reason": reason}
                )
            case SetBackup(subflow, backup, reason):
                commands.set_backup(
                    token,
                    subflow.local,
                    subflow.local_port,
                    subflow.remote,
                    subflow.remote_port,
                    backup=backup,
                )
                subflow.backup = backup
                session.history.add(
                    now, HistoryEvent.BACKUP_SET if backup else HistoryEvent.BACKUP_CLEARED, subflow.pair
                )
                detail = {"subflow": subflow.id, "backup": backup, "reason": reason}
                self._publish(now.time, "subflow", "priority", session, detail)
            case Announce(ip, local_id):
                commands.announce(token, ip, local_id, port=action.port, backup=action.backup)
                session.announced = {**(session.announced or {}), ip: local_id}
                forget_refusal(session, ip)
                session.history.add(now, HistoryEvent.ADDRESS_ANNOUNCED, ip)
            case Withdraw():
                self._withdraw(session, action)
                if session.announced:
                    session.announced.pop(action.ip, None)
                forget_refusal(session, action.ip)
                session.history.add(now, HistoryEvent.ADDRESS_WITHDRAWN, action.ip)

    def _withdraw(self, session: Session, action: Withdraw) -> None:
        """RM_ADDR, also for an address whose id the kernel does not know (any more).

        It forgets the id of an address when one of its subflows is closed on command, or cannot be
        opened (SUBFLOW_DESTROY, SUBFLOW_CREATE), and sends nothing for an address that has no subflow
        and is not announced. An announcement directly before helps in both cases; at another time it
        would make the peer join. Another id that the kernel has given the address meanwhile must go first.
        """
        token, ip, local_id = session.token, action.ip, action.local_id
        if not action.announce_first:
            try:
                self._commands.withdraw(token, local_id)
            except KernelRefused as e:
                if e.errno != errno.EINVAL or not local_id or NOT_OURS in e.reason:
                    raise
            else:
                return
        given = (session.local_ids or {}).get(ip, local_id)
        if given != local_id:
            with suppress(KernelRefused):
                self._commands.withdraw(token, given)
        self._commands.announce(token, ip, local_id)
        self._commands.withdraw(token, local_id)

    def _refused(self, session: Session, action: Action, error: KernelRefused, now: Moment) -> None:
        if NOT_OURS in error.reason:
            session.managed = False
            session.history.add(now, HistoryEvent.UNMANAGED, "the kernel's own path manager has this session")
            return
        session.history.add(now, KINDS[type(action)].refused, str(error))
        if isinstance(action, Announce | Withdraw):
            note_refusal(session, action.ip, str(error), now.monotonic)
        if isinstance(action, Open) and error.errno == errno.ENOTCONN:
            self._look_at_half_closed(session)
        if isinstance(action, Open):
            retry = note_failure(session, action.pair, str(error), now.monotonic, kind=FailureKind.COMMAND)
            log.info(
                "subflow_refused",
                about=session.token,
                token=token_text(session.token),
                pair=str(action.pair),
                error=str(error),
                failures=retry.failures,
            )

    def _look_at_half_closed(self, session: Session) -> None:
        """ENOTCONN: not established yet, or one end has closed, and no subflow can be opened ever again."""
        try:
            (info,) = self._diagnosis.session_infos((session.token,))
        except KernelRefused:
            return  # asked again when it is refused again
        session.half_closed = info is not None and info.state not in (TcpState.ESTABLISHED, TcpState.SYN_SENT)
