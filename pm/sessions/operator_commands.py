# SPDX-License-Identifier: Apache-2.0
"""What the operator does to one session's subflows, over REST or the CLI."""

from __future__ import annotations

from pm.errors import LimitReached, NotFound
from pm.model import SUBFLOWS_MAX, Origin, Pair, Subflow, token_text
from pm.sessions.actions import Action, Close, Open, SetBackup
from pm.sessions.executor import Executor
from pm.sessions.local_addresses import AddressBook
from pm.sessions.plan import opened_here
from pm.sessions.session import Session
from pm.sessions.session_table import SessionTable


class OperatorCommands:
    """Every method raises NotFound, LimitReached and KernelRefused."""

    def __init__(self, *, table: SessionTable, executor: Executor, addresses: AddressBook) -> None:
        self._table = table
        self._executor = executor
        self._addresses = addresses

    def open_subflow(self, token: int, pair: Pair, *, backup: bool | None) -> Subflow:
        """``backup`` None: as the configuration says for the local address."""
        session, addresses = self._session(token), self._addresses
        if opened_here(session) >= SUBFLOWS_MAX:
            raise LimitReached(
                f"session {token_text(token)} has {SUBFLOWS_MAX} subflows of this end already",
                "close one first",
            )
        flag = addresses.is_backup(pair.local) if backup is None else backup
        ifindex = addresses.device_for(session, pair)
        local_id = addresses.local_id(session, pair.local)
        self._perform(session, Open(pair, local_id, flag, "by hand", ifindex))
        return session.subflows[-1]

    def close_subflow(self, token: int, subflow_id: str) -> None:
        """The path manager does not open it again until a reload."""
        session = self._session(token)
        subflow = self._subflow(session, subflow_id)
        self._perform(session, Close(subflow, "by hand"))
        if subflow.origin in (Origin.POLICY, Origin.INITIAL):
            session.closed_by_operator = {**(session.closed_by_operator or {})}
            session.closed_by_operator[subflow.pair] = session.closed_by_operator.get(subflow.pair, 0) + 1

    def set_backup(self, token: int, subflow_id: str, *, backup: bool) -> None:
        """The path manager leaves the flag alone from now on."""
        session = self._session(token)
        subflow = self._subflow(session, subflow_id)
        self._perform(session, SetBackup(subflow, backup, "by hand"))
        subflow.backup_by_hand = True

    def _perform(self, session: Session, action: Action) -> None:
        if refused := self._executor.perform(session, action, Origin.OPERATOR):
            raise refused

    def _session(self, token: int) -> Session:
        if session := self._table.get(token):
            return session
        raise NotFound(f"no session {token_text(token)}", "list them with `mptcp-pm sessions`")

    def _subflow(self, session: Session, subflow_id: str) -> Subflow:
        for subflow in session.subflows:
            if subflow.id == subflow_id:
                return subflow
        raise NotFound(
            f"session {token_text(session.token)} has no subflow {subflow_id}",
            f"list them with `mptcp-pm session {token_text(session.token)}`",
        )
