# SPDX-License-Identifier: GPL-2.0-only
"""Messages of the mptcp_pm family to bytes and back.

Events and SUBFLOW_CREATE lie between "established" and the MP_JOIN: they are packed and decoded by
hand, and a test compares the bytes to pyroute2's. All other commands are pyroute2's work.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST

from pm.kernel import Prepared
from pm.linux.ip import ip_bytes, ip_text, packed_ip
from pm.linux.netlink.mptcp_pm_messages import VERSION, AddressFlag, Command, mptcp_pm_msg

NLM_F_ACK_TLVS = 0x200
NLMSGERR_ATTR_MSG = 1
DENY_JOIN_ID0 = 1  # MPTCP_PM_EV_FLAG_DENY_JOIN_ID0, set on the event of a session
FLAG_SERVER_SIDE = 2  # MPTCP_PM_EV_FLAG_SERVER_SIDE, kernels 6.18 and newer

_NLMSG = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")
_BE16 = struct.Struct("!H")
_ERROR = struct.Struct("=i")
# SUBFLOW_CREATE: nlmsghdr, genlmsghdr, ADDR{FAMILY, ID, ADDR4|6, FLAGS}, TOKEN,
# ADDR_REMOTE{FAMILY, ADDR4|6, PORT}
_CREATE = {
    4: struct.Struct("=IHHII BBH HH HHHxx HHBxxx HH4s HHI HHI HH HHHxx HH4s HHHxx"),
    6: struct.Struct("=IHHII BBH HH HHHxx HHBxxx HH16s HHI HHI HH HHHxx HH16s HHHxx"),
}
_TOKEN_AT = {_CREATE[4].size: 60, _CREATE[6].size: 72}
_NESTED = 0x8000


class Event(NamedTuple):
    """pm.kernel.Event."""

    type: int
    token: int
    family: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    local_id: int
    remote_id: int
    backup: bool
    error: int
    reset_reason: int
    server_side: bool
    deny_join_id0: bool


def pack_create_subflow(
    family: int,
    sequence: int,
    token: int,
    local: str,
    local_id: int,
    remote: str,
    remote_port: int,
    *,
    backup: bool,
) -> bytes:
    """The bytes of MPTCP_PM_CMD_SUBFLOW_CREATE."""
    source, destination = ip_bytes(local), ip_bytes(remote)
    if len(source) == 4:
        layout, length, af, attr = _CREATE[4], 4, socket.AF_INET, 3
    else:
        layout, length, af, attr = _CREATE[6], 16, socket.AF_INET6, 4
    flags = AddressFlag.SUBFLOW | (AddressFlag.BACKUP if backup else 0)
    return layout.pack(
        *(layout.size, family, NLM_F_REQUEST | NLM_F_ACK, sequence, 0),
        *(Command.SUBFLOW_CREATE, VERSION, 0),
        *(4 + 8 + 8 + 4 + length + 8, 1 | _NESTED),
        *(6, 1, af),
        *(5, 2, local_id),
        *(4 + length, attr, source),
        *(8, 6, flags),
        *(8, 4, token),
        *(4 + 8 + 4 + length + 8, 6 | _NESTED),
        *(6, 1, af),
        *(4 + length, attr, destination),
        *(6, 5, remote_port),
    )


def pack_command(family: int, sequence: int, command: Command, *attributes: tuple[object, ...]) -> bytes:
    """Any command by pyroute2; ``attributes`` are its (name, value) or (name, value, flags) tuples."""
    message = mptcp_pm_msg()
    message["cmd"] = command
    message["version"] = VERSION
    message["attrs"] = list(attributes)
    message["header"]["type"] = family
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK
    message["header"]["sequence_number"] = sequence
    message.encode()
    return bytes(message.data)


def decode_event(data: bytes) -> Event:
    """An event from one datagram: nlmsghdr, genlmsghdr, MPTCP_ATTR_*."""
    token = family = local_port = remote_port = local_id = remote_id = error = flags = 0
    local = remote = ""
    backup = server_side = False
    reset_reason = -1
    offset, end = 20, len(data)
    while offset + 4 <= end:
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4:
            break
        at = offset + 4
        match kind:
            case 1:
                (token,) = _U32.unpack_from(data, at)
            case 2:
                family = 4 if _U16.unpack_from(data, at)[0] == socket.AF_INET else 6
            case 3:
                local_id = data[at]
            case 4:
                remote_id = data[at]
            case 5 | 6:
                local = ip_text(data[at : offset + length])
            case 7 | 8:
                remote = ip_text(data[at : offset + length])
            case 9:
                (local_port,) = _BE16.unpack_from(data, at)
            case 10:
                (remote_port,) = _BE16.unpack_from(data, at)
            case 11:
                backup = data[at] != 0
            case 12:
                error = data[at]
            case 13:
                (flags,) = _U16.unpack_from(data, at)
            case 16:
                (reset_reason,) = _U32.unpack_from(data, at)
            case 18:
                server_side = data[at] != 0
        offset += (length + 3) & ~3
    return Event(
        data[16],
        token,
        family,
        local,
        local_port,
        remote,
        remote_port,
        local_id,
        remote_id,
        backup,
        error,
        reset_reason,
        server_side or bool(flags & FLAG_SERVER_SIDE),
        bool(flags & DENY_JOIN_ID0),
    )


def prepare(command: bytes) -> Prepared:
    """SUBFLOW_CREATE without its token."""
    at = _TOKEN_AT[len(command)]
    return Prepared(command[:at], command[at + 4 :])


def complete(prepared: Prepared, token: int) -> bytes:
    """SUBFLOW_CREATE for a session."""
    return prepared.head + _U32.pack(token) + prepared.tail


def token_attribute(token: int) -> bytes:
    """MPTCP_ATTR_TOKEN as it begins every event about a session: bytes 20 to 28 of the message."""
    return _ATTR.pack(8, 1) + _U32.pack(token)


def error_of(answer: bytes) -> int:
    """The errno of an NLMSG_ERROR; 0 is success."""
    error: int = -_ERROR.unpack_from(answer, 16)[0]
    return error


def address(
    attribute: str,
    ip: str,
    *,
    mapped: bool = False,
    address_id: int | None = None,
    port: int = 0,
    flags: int | None = None,
) -> tuple[object, ...]:
    """A nested MPTCP_PM_ATTR_ADDR or _ADDR_REMOTE for pyroute2."""
    v6 = mapped or ":" in ip
    attrs: list[tuple[str, object]] = [
        ("MPTCP_PM_ADDR_ATTR_FAMILY", socket.AF_INET6 if v6 else socket.AF_INET)
    ]
    if address_id is not None:
        attrs.append(("MPTCP_PM_ADDR_ATTR_ID", address_id))
    if v6:
        text = socket.inet_ntop(socket.AF_INET6, packed_ip(ip))
        attrs.append(("MPTCP_PM_ADDR_ATTR_ADDR6", text))
    else:
        attrs.append(("MPTCP_PM_ADDR_ATTR_ADDR4", ip))
    if flags is not None:
        attrs.append(("MPTCP_PM_ADDR_ATTR_FLAGS", flags))
    if port:
        attrs.append(("MPTCP_PM_ADDR_ATTR_PORT", port))
    return attribute, {"attrs": attrs}, _NESTED


def extended_ack(answer: bytes) -> str:
    """The kernel's own words in an NLMSG_ERROR, or ""."""
    _, _, flags, _, _ = _NLMSG.unpack_from(answer)
    if not flags & NLM_F_ACK_TLVS:
        return ""
    offset = 16 + 4 + 16  # our own header follows the errno; its payload is capped (NETLINK_CAP_ACK)
    while offset + 4 <= len(answer):
        length, kind = _ATTR.unpack_from(answer, offset)
        if length < 4:
            break
        if kind & 0x3FFF == NLMSGERR_ATTR_MSG:
            return answer[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return ""
