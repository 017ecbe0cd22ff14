# SPDX-License-Identifier: GPL-2.0-only
"""The mptcp_pm generic netlink family in full, on pyroute2's classes (its own stop at command 7).

Source: include/uapi/linux/mptcp.h and Documentation/netlink/specs/mptcp_pm.yaml.
"""

from __future__ import annotations

from enum import IntEnum

from pyroute2.netlink import genlmsg
from pyroute2.netlink.generic.mptcp import mptcp_msg

FAMILY = "mptcp_pm"
EVENT_GROUP = "mptcp_pm_events"
VERSION = 1


class Command(IntEnum):
    """MPTCP_PM_CMD_*: those a user-space path manager gives."""

    GET_ADDR = 3
    SET_FLAGS = 7
    ANNOUNCE = 8
    REMOVE = 9
    SUBFLOW_CREATE = 10
    SUBFLOW_DESTROY = 11


class AddressFlag(IntEnum):
    """MPTCP_PM_ADDR_FLAG_*."""

    SIGNAL = 1
    SUBFLOW = 2
    BACKUP = 4


class mptcp_pm_msg(mptcp_msg):  # type: ignore[misc]
    """A command, with the attributes that sessions need (token, local id, remote address)."""

    nla_map = (
        *mptcp_msg.nla_map,
        ("MPTCP_PM_ATTR_TOKEN", "uint32"),
        ("MPTCP_PM_ATTR_LOC_ID", "uint8"),
        ("MPTCP_PM_ATTR_ADDR_REMOTE", "pm_addr"),
    )


class mptcp_event_msg(genlmsg):  # type: ignore[misc]
    """An event of the group ``mptcp_pm_events``; its type is the generic netlink command."""

    prefix = "MPTCP_ATTR_"
    nla_map = (
        ("MPTCP_ATTR_UNSPEC", "none"),
        ("MPTCP_ATTR_TOKEN", "uint32"),
        ("MPTCP_ATTR_FAMILY", "uint16"),
        ("MPTCP_ATTR_LOC_ID", "uint8"),
        ("MPTCP_ATTR_REM_ID", "uint8"),
        ("MPTCP_ATTR_SADDR4", "ip4addr"),
        ("MPTCP_ATTR_SADDR6", "ip6addr"),
        ("MPTCP_ATTR_DADDR4", "ip4addr"),
        ("MPTCP_ATTR_DADDR6", "ip6addr"),
        ("MPTCP_ATTR_SPORT", "be16"),
        ("MPTCP_ATTR_DPORT", "be16"),
        ("MPTCP_ATTR_BACKUP", "uint8"),
        ("MPTCP_ATTR_ERROR", "uint8"),
        ("MPTCP_ATTR_FLAGS", "uint16"),
        ("MPTCP_ATTR_TIMEOUT", "uint32"),
        ("MPTCP_ATTR_IF_IDX", "int32"),
        ("MPTCP_ATTR_RESET_REASON", "uint32"),
        ("MPTCP_ATTR_RESET_FLAGS", "uint32"),
        ("MPTCP_ATTR_SERVER_SIDE", "uint8"),
    )
