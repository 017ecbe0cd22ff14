# SPDX-License-Identifier: Apache-2.0
"""Messages of the mptcp_pm family to bytes and back.

Events and SUBFLOW_CREATE lie between "established" and the MP_JOIN: their code is written for speed. Tests
compare the bytes of every command, and what is read from events, with pyroute2's.
"""

from __future__ import annotations

import socket
import struct

from pm.kernel import CreateCommand, MptcpEvent
from pm.linux.ip import ip_bytes, ip_text, packed_ip
from pm.linux.netlink import framing, generic_netlink
from pm.linux.netlink.framing import NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST, pack_attribute
from pm.linux.netlink.mptcp_pm_messages import (
    MPTCP_ATTR_BACKUP,
    MPTCP_ATTR_DADDR4,
    MPTCP_ATTR_DADDR6,
    MPTCP_ATTR_DPORT,
    MPTCP_ATTR_ERROR,
    MPTCP_ATTR_FAMILY,
    MPTCP_ATTR_FLAGS,
    MPTCP_ATTR_LOC_ID,
    MPTCP_ATTR_REM_ID,
    MPTCP_ATTR_RESET_REASON,
    MPTCP_ATTR_SADDR4,
    MPTCP_ATTR_SADDR6,
    MPTCP_ATTR_SERVER_SIDE,
    MPTCP_ATTR_SPORT,
    MPTCP_ATTR_TOKEN,
    MPTCP_PM_ADDR_ATTR_ADDR4,
    MPTCP_PM_ADDR_ATTR_ADDR6,
    MPTCP_PM_ADDR_ATTR_FAMILY,
    MPTCP_PM_ADDR_ATTR_FLAGS,
    MPTCP_PM_ADDR_ATTR_ID,
    MPTCP_PM_ADDR_ATTR_IF_IDX,
    MPTCP_PM_ADDR_ATTR_PORT,
    MPTCP_PM_ATTR_ADDR,
    MPTCP_PM_ATTR_ADDR_REMOTE,
    MPTCP_PM_ATTR_LOC_ID,
    MPTCP_PM_ATTR_TOKEN,
    MPTCP_PM_EV_FLAG_DENY_JOIN_ID0,
    MPTCP_PM_EV_FLAG_SERVER_SIDE,
    VERSION,
    AddressFlag,
    Command,
)

_U8 = struct.Struct("=B")
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")
_BE16 = struct.Struct("!H")

# What the functions for every event and subflow use, looked up once.
_AF_INET = int(socket.AF_INET)
_CREATE = int(Command.SUBFLOW_CREATE)
_SUBFLOW, _SUBFLOW_BACKUP = int(AddressFlag.SUBFLOW), AddressFlag.SUBFLOW | AddressFlag.BACKUP
_SADDR, _DADDR = (MPTCP_ATTR_SADDR4, MPTCP_ATTR_SADDR6), (MPTCP_ATTR_DADDR4, MPTCP_ATTR_DADDR6)
_ADDR, _ADDR_REMOTE = MPTCP_PM_ATTR_ADDR | NLA_F_NESTED, MPTCP_PM_ATTR_ADDR_REMOTE | NLA_F_NESTED
_attribute, _u16, _u32, _be16 = (
    framing.ATTRIBUTE.unpack_from, _U16.unpack_from, _U32.unpack_from, _BE16.unpack_from,
)  # fmt: skip

# SUBFLOW_CREATE before the token: nlmsghdr, genlmsghdr, ADDR{FAMILY, ID, ADDR4|6, FLAGS}, header of TOKEN;
# and after it: ADDR_REMOTE{FAMILY, ADDR4|6, PORT}.
_HEAD = {n: struct.Struct(f"=IHHII BBH HH HHHxx HHBxxx HH{n}s HHI HH") for n in (4, 16)}
_TAIL = {n: struct.Struct(f"=HH HHHxx HH{n}s HHHxx") for n in (4, 16)}
# Address family and attribute of an address of so many bytes.
_KINDS = {
    4: (_AF_INET, MPTCP_PM_ADDR_ATTR_ADDR4),
    16: (int(socket.AF_INET6), MPTCP_PM_ADDR_ATTR_ADDR6),
}
_TOKEN_HEADER = framing.ATTRIBUTE.pack(8, MPTCP_ATTR_TOKEN)
_EVENT_ATTRIBUTES_AT = framing.HEADER.size + generic_netlink.HEADER.size


def pack_create_subflow(
    family_id: int,
    local: str,
    local_id: int,
    remote: str,
    remote_port: int,
    *,
    backup: bool,
    ifindex: int = 0,
) -> CreateCommand:
    """MPTCP_PM_CMD_SUBFLOW_CREATE but for its token. Raises OSError for text that is not an address."""
    if ifindex:
        return _pack_bound_subflow(family_id, local, local_id, remote, remote_port, ifindex, backup=backup)
    source, destination = ip_bytes(local), ip_bytes(remote)
    n = len(source)
    family, address = _KINDS[n]
    head, tail = _HEAD[n], _TAIL[n]
    return CreateCommand(
        head.pack(
            *(head.size + 4 + tail.size, family_id, NLM_F_REQUEST | NLM_F_ACK, 0, 0),
            *(_CREATE, VERSION, 0),
            *(4 + 8 + 8 + 4 + n + 8, _ADDR),
            *(6, MPTCP_PM_ADDR_ATTR_FAMILY, family),
            *(5, MPTCP_PM_ADDR_ATTR_ID, local_id),
            *(4 + n, address, source),
            *(8, MPTCP_PM_ADDR_ATTR_FLAGS, _SUBFLOW_BACKUP if backup else _SUBFLOW),
            *(8, MPTCP_PM_ATTR_TOKEN),
        ),
        tail.pack(
            *(4 + 8 + 4 + n + 8, _ADDR_REMOTE),
            *(6, MPTCP_PM_ADDR_ATTR_FAMILY, family),
            *(4 + n, address, destination),
            *(6, MPTCP_PM_ADDR_ATTR_PORT, remote_port),
        ),
    )


def _pack_bound_subflow(
    family_id: int,
    local: str,
    local_id: int,
    remote: str,
    remote_port: int,
    ifindex: int,
    *,
    backup: bool,
) -> CreateCommand:
    flags = _SUBFLOW_BACKUP if backup else _SUBFLOW
    address = _address(MPTCP_PM_ATTR_ADDR, local, address_id=local_id, flags=flags, ifindex=ifindex)
    tail = _address(MPTCP_PM_ATTR_ADDR_REMOTE, remote, port=remote_port)
    message = _command(family_id, Command.SUBFLOW_CREATE, address, _token(0), tail)
    at = len(message) - len(tail)
    return CreateCommand(message[: at - 4], tail)


def complete(command: CreateCommand, token: int) -> bytes:
    """SUBFLOW_CREATE for a session."""
    return command.head + _U32.pack(token) + command.tail


def pack_destroy_subflow(
    family_id: int,
    token: int,
    local: str,
    local_port: int,
    remote: str,
    remote_port: int,
    *,
    socket_family: int,
) -> bytes:
    """MPTCP_PM_CMD_SUBFLOW_DESTROY. ``socket_family`` 6 makes IPv4 addresses v4-mapped."""
    mapped = socket_family == 6
    return _command(
        family_id,
        Command.SUBFLOW_DESTROY,
        _address(MPTCP_PM_ATTR_ADDR, local, mapped=mapped, port=local_port),
        _token(token),
        _address(MPTCP_PM_ATTR_ADDR_REMOTE, remote, mapped=mapped, port=remote_port),
    )


def pack_set_backup(
    family_id: int, token: int, local: str, local_port: int, remote: str, remote_port: int, *, backup: bool
) -> bytes:
    """MPTCP_PM_CMD_SET_FLAGS for one subflow."""
    flags = AddressFlag.BACKUP if backup else 0
    return _command(
        family_id,
        Command.SET_FLAGS,
        _address(MPTCP_PM_ATTR_ADDR, local, port=local_port, flags=flags),
        _token(token),
        _address(MPTCP_PM_ATTR_ADDR_REMOTE, remote, port=remote_port),
    )


def pack_announce(
    family_id: int, token: int, ip: str, local_id: int, *, port: int = 0, backup: bool = False
) -> bytes:
    """MPTCP_PM_CMD_ANNOUNCE."""
    flags = AddressFlag.SIGNAL | AddressFlag.BACKUP if backup else AddressFlag.SIGNAL
    address = _address(MPTCP_PM_ATTR_ADDR, ip, address_id=local_id, flags=flags, port=port)
    return _command(family_id, Command.ANNOUNCE, address, _token(token))


def pack_withdraw(family_id: int, token: int, local_id: int) -> bytes:
    """MPTCP_PM_CMD_REMOVE."""
    local_id_attribute = pack_attribute(MPTCP_PM_ATTR_LOC_ID, _U8.pack(local_id))
    return _command(family_id, Command.REMOVE, _token(token), local_id_attribute)


def _command(family_id: int, command: Command, *attributes: bytes) -> bytes:
    header = generic_netlink.HEADER.pack(command, VERSION, 0)
    return framing.pack(family_id, NLM_F_REQUEST | NLM_F_ACK, 0, b"".join((header, *attributes)))


def _token(token: int) -> bytes:
    return pack_attribute(MPTCP_PM_ATTR_TOKEN, _U32.pack(token))


def _address(
    attribute: int,
    ip: str,
    *,
    mapped: bool = False,
    address_id: int | None = None,
    port: int = 0,
    flags: int | None = None,
    ifindex: int = 0,
) -> bytes:
    """MPTCP_PM_ATTR_ADDR or MPTCP_PM_ATTR_ADDR_REMOTE; what is None and the port 0 are left out."""
    packed = packed_ip(ip) if mapped else ip_bytes(ip)
    family, kind = _KINDS[len(packed)]
    nested = [pack_attribute(MPTCP_PM_ADDR_ATTR_FAMILY, _U16.pack(family))]
    if address_id is not None:
        nested.append(pack_attribute(MPTCP_PM_ADDR_ATTR_ID, _U8.pack(address_id)))
    nested.append(pack_attribute(kind, packed))
    if flags is not None:
        nested.append(pack_attribute(MPTCP_PM_ADDR_ATTR_FLAGS, _U32.pack(flags)))
    if ifindex:
        nested.append(pack_attribute(MPTCP_PM_ADDR_ATTR_IF_IDX, _U32.pack(ifindex)))
    if port:
        nested.append(pack_attribute(MPTCP_PM_ADDR_ATTR_PORT, _U16.pack(port)))
    return framing.pack_nested(attribute, *nested)


def token_attribute(token: int) -> bytes:
    """MPTCP_ATTR_TOKEN as it begins every event about a session: bytes 20 to 28 of the message."""
    return _TOKEN_HEADER + _U32.pack(token)


def decode_event(data: bytes) -> MptcpEvent:
    """An event from one datagram: nlmsghdr, genlmsghdr, MPTCP_ATTR_*."""
    token = family = local_port = remote_port = local_id = remote_id = error = flags = 0
    local = remote = ""
    backup = server_side = False
    reset_reason = -1
    # The loop of framing.attributes, written here: a generator makes decoding a sixth slower.
    offset, end = _EVENT_ATTRIBUTES_AT, len(data)
    while offset + 4 <= end:
        length, kind = _attribute(data, offset)
        if length < 4:
            break
        at = offset + 4
        if kind == MPTCP_ATTR_TOKEN:
            (token,) = _u32(data, at)
        elif kind == MPTCP_ATTR_FAMILY:
            family = 4 if _u16(data, at)[0] == _AF_INET else 6
        elif kind == MPTCP_ATTR_LOC_ID:
            local_id = data[at]
        elif kind == MPTCP_ATTR_REM_ID:
            remote_id = data[at]
        elif kind in _SADDR:
            local = ip_text(data[at : offset + length])
        elif kind in _DADDR:
            remote = ip_text(data[at : offset + length])
        elif kind == MPTCP_ATTR_SPORT:
            (local_port,) = _be16(data, at)
        elif kind == MPTCP_ATTR_DPORT:
            (remote_port,) = _be16(data, at)
        elif kind == MPTCP_ATTR_BACKUP:
            backup = data[at] != 0
        elif kind == MPTCP_ATTR_ERROR:
            error = data[at]
        elif kind == MPTCP_ATTR_FLAGS:
            (flags,) = _u16(data, at)
        elif kind == MPTCP_ATTR_RESET_REASON:
            (reset_reason,) = _u32(data, at)
        elif kind == MPTCP_ATTR_SERVER_SIDE:
            server_side = data[at] != 0
        offset += (length + 3) & ~3
    return MptcpEvent(
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
        server_side or bool(flags & MPTCP_PM_EV_FLAG_SERVER_SIDE),
        bool(flags & MPTCP_PM_EV_FLAG_DENY_JOIN_ID0),
    )
