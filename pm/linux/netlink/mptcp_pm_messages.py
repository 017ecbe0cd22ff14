# SPDX-License-Identifier: Apache-2.0
"""The names and numbers of the generic netlink family ``mptcp_pm``, as the kernel spells them.

Source: include/uapi/linux/mptcp.h, mptcp_pm.h and Documentation/netlink/specs/mptcp_pm.yaml. Numbers of
attributes are plain constants: the hot path compares them, and members of an IntEnum are slower.
"""

from __future__ import annotations

from enum import IntEnum

FAMILY = "mptcp_pm"
EVENT_GROUP = "mptcp_pm_events"
VERSION = 1


class Command(IntEnum):
    """MPTCP_PM_CMD_*: those that a path manager in user space gives, and those that read the endpoints."""

    GET_ADDR = 3
    GET_LIMITS = 6
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
    FULLMESH = 8
    LAMINAR = 32  # Linux 6.18


# Attributes of a command
MPTCP_PM_ATTR_ADDR = 1
MPTCP_PM_ATTR_RCV_ADD_ADDRS = 2
MPTCP_PM_ATTR_SUBFLOWS = 3
MPTCP_PM_ATTR_TOKEN = 4
MPTCP_PM_ATTR_LOC_ID = 5
MPTCP_PM_ATTR_ADDR_REMOTE = 6

# Attributes within MPTCP_PM_ATTR_ADDR and MPTCP_PM_ATTR_ADDR_REMOTE
MPTCP_PM_ADDR_ATTR_FAMILY = 1
MPTCP_PM_ADDR_ATTR_ID = 2
MPTCP_PM_ADDR_ATTR_ADDR4 = 3
MPTCP_PM_ADDR_ATTR_ADDR6 = 4
MPTCP_PM_ADDR_ATTR_PORT = 5
MPTCP_PM_ADDR_ATTR_FLAGS = 6
MPTCP_PM_ADDR_ATTR_IF_IDX = 7

# Attributes of an event
MPTCP_ATTR_TOKEN = 1
MPTCP_ATTR_FAMILY = 2
MPTCP_ATTR_LOC_ID = 3
MPTCP_ATTR_REM_ID = 4
MPTCP_ATTR_SADDR4 = 5
MPTCP_ATTR_SADDR6 = 6
MPTCP_ATTR_DADDR4 = 7
MPTCP_ATTR_DADDR6 = 8
MPTCP_ATTR_SPORT = 9
MPTCP_ATTR_DPORT = 10
MPTCP_ATTR_BACKUP = 11
MPTCP_ATTR_ERROR = 12
MPTCP_ATTR_FLAGS = 13
MPTCP_ATTR_RESET_REASON = 16
MPTCP_ATTR_SERVER_SIDE = 18

# Bits of MPTCP_ATTR_FLAGS
MPTCP_PM_EV_FLAG_DENY_JOIN_ID0 = 1
MPTCP_PM_EV_FLAG_SERVER_SIDE = 2  # kernels 6.18 and newer, in place of MPTCP_ATTR_SERVER_SIDE
