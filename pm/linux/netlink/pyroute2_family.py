# SPDX-License-Identifier: Apache-2.0
"""The mptcp_pm family in pyroute2's classes (its own stop at command 7): a second opinion.

``mptcp-pm doctor`` asks the kernel with it, and tests compare with it what the service packs and decodes
by hand. The service itself does not import it (docs/decisions/0013-pyroute2.md).
"""

from __future__ import annotations

from pyroute2.netlink import NLM_F_REQUEST, ctrlmsg, genlmsg
from pyroute2.netlink.generic.mptcp import mptcp_msg

from pm.linux.netlink.generic_netlink import CTRL_CMD_GETFAMILY, CTRL_VERSION, GENL_ID_CTRL, Family, ask


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


def find_family(name: str) -> Family:
    """``pm.linux.netlink.generic_netlink.find_family`` by pyroute2: same result, same errors."""
    request = ctrlmsg()
    request["cmd"] = CTRL_CMD_GETFAMILY
    request["version"] = CTRL_VERSION
    request["attrs"] = [("CTRL_ATTR_FAMILY_NAME", name)]
    request["header"]["type"] = GENL_ID_CTRL
    request["header"]["flags"] = NLM_F_REQUEST
    request.encode()
    data, _ = ask(bytes(request.data))
    answer = ctrlmsg(data)
    answer.decode()
    groups = answer.get_attr("CTRL_ATTR_MCAST_GROUPS") or ()
    return Family(
        answer.get_attr("CTRL_ATTR_FAMILY_ID"),
        frozenset(op.get_attr("CTRL_ATTR_OP_ID") for op in answer.get_attr("CTRL_ATTR_OPS") or ()),
        {g.get_attr("CTRL_ATTR_MCAST_GRP_NAME"): g.get_attr("CTRL_ATTR_MCAST_GRP_ID") for g in groups},
    )
