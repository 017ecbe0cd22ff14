# SPDX-License-Identifier: GPL-2.0-only
"""What a plan consists of: one action is one command to the kernel."""

from __future__ import annotations

from typing import NamedTuple

from pm.model import Pair, Subflow


class Open(NamedTuple):
    """MPTCP_PM_CMD_SUBFLOW_CREATE."""

    pair: Pair
    local_id: int
    backup: bool
    reason: str


class Close(NamedTuple):
    """MPTCP_PM_CMD_SUBFLOW_DESTROY."""

    subflow: Subflow
    reason: str


class SetBackup(NamedTuple):
    """MPTCP_PM_CMD_SET_FLAGS: sends MP_PRIO on the subflow."""

    subflow: Subflow
    backup: bool
    reason: str


class Announce(NamedTuple):
    """MPTCP_PM_CMD_ANNOUNCE: ADD_ADDR to the peer."""

    ip: str
    local_id: int
    reason: str


class Withdraw(NamedTuple):
    """MPTCP_PM_CMD_REMOVE: RM_ADDR to the peer."""

    ip: str
    local_id: int
    reason: str


Action = Open | Close | SetBackup | Announce | Withdraw
