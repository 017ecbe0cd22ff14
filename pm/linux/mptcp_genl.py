# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's MPTCP path-manager interface: events of all sessions, commands on one.

Events are decoded and SUBFLOW_CREATE is packed by hand, since both lie between "established" and
the MP_JOIN; a test compares the bytes to pyroute2's. The kernel executes a command inside send(),
so its answer is there when send() returns: commands are plain calls, not coroutines.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NamedTuple, Self

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST, ctrlmsg

from pm.errors import KernelRefused, SystemUnfit
from pm.kernel import EventsLost, EventType, Prepared
from pm.linux.ip import ip_bytes, ip_bytes_mapped, ip_text
from pm.linux.mptcp_messages import (
    EVENT_GROUP,
    FAMILY,
    VERSION,
    AddressFlag,
    Command,
    mptcp_pm_msg,
)

NETLINK_GENERIC = 16
GENL_ID_CTRL = 16
CTRL_CMD_GETFAMILY = 3
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NLMSG_ERROR = 2
NLM_F_ACK_TLVS = 0x200
NLMSGERR_ATTR_MSG = 1
EVENT_BUFFER_BYTES = 16 << 20  # some 20,000 events between two turns of the loop
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
_TOKEN_FIRST = _ATTR.pack(8, 1)
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


class Message(NamedTuple):
    """pm.kernel.Message: one datagram, and the EventType it is of."""

    type: int
    data: bytes
    outcomes: list[KernelRefused | None] | None = None
    took_s: float = 0.0

    def decode(self) -> Event:
        return decode_event(self.data)


class PathManagerSocket:
    """Both ends of the family ``mptcp_pm`` in this process's network namespace."""

    def __init__(self, event_buffer_bytes: int = EVENT_BUFFER_BYTES) -> None:
        self._commands = _open_socket()
        try:
            self._family, group = _resolve_family(self._commands)
            self._events = _open_socket()
        except BaseException:
            self._commands.close()
            raise
        self._events.setsockopt(socket.SOL_SOCKET, 33, event_buffer_bytes)  # SO_RCVBUFFORCE
        self._events.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        self._events.setblocking(False)
        self._sequence = 0
        self._armed: dict[bytes, list[bytes]] = {}
        self._buffer = memoryview(bytearray(1 << 16))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._events.close()
        self._commands.close()

    def fileno(self) -> int:
        """Of the event socket, for the event loop."""
        return self._events.fileno()

    def read_events(self, limit: int = 256) -> Iterator[Message]:
        """The events that wait, at most ``limit``. Raises EventsLost where the kernel dropped some."""
        for _ in range(limit):
            try:
                length = self._events.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno == errno.ENOBUFS:
                    raise EventsLost from e
                raise
            kind = self._buffer[16]
            if kind == EventType.ESTABLISHED and self._armed:
                # The kernel puts the token first: what is armed goes out before anything is decoded.
                commands = self._armed.pop(bytes(self._buffer[20:28]), None)
                if commands:
                    begin = time.perf_counter()
                    data = bytes(self._buffer[:length])
                    outcomes = [self._try(command) for command in commands]
                    yield Message(kind, data, outcomes, time.perf_counter() - begin)
                    continue
            yield Message(kind, bytes(self._buffer[:length]))

    def arm(self, token: int, prepared: Iterable[Prepared]) -> None:
        """Have these subflows created the moment the session's ESTABLISHED is read."""
        packed = _U32.pack(token)
        self._armed[_TOKEN_FIRST + packed] = [head + packed + tail for head, tail in prepared]

    def disarm(self, token: int | None = None) -> None:
        """Forget what is armed for a session; for all without ``token``."""
        if token is None:
            self._armed.clear()
        else:
            self._armed.pop(_TOKEN_FIRST + _U32.pack(token), None)

    def _try(self, command: bytes) -> KernelRefused | None:
        try:
            self._command(command, "open subflow")
        except KernelRefused as e:
            return e
        return None

    # Commands. Each raises KernelRefused with the kernel's errno and extended acknowledgement.

    def prepare_subflow(
        self, local: str, local_id: int, remote: str, remote_port: int, *, backup: bool
    ) -> Prepared:
        """Opens a subflow on a source port of the kernel's; nothing is sent."""
        command = pack_create_subflow(self._family, 0, 0, local, local_id, remote, remote_port, backup=backup)
        at = _TOKEN_AT[len(command)]
        return Prepared(command[:at], command[at + 4 :])

    def create_subflow(self, token: int, prepared: Prepared) -> None:
        """Start the subflow; an event tells whether it was established."""
        self._command(prepared.head + _U32.pack(token) + prepared.tail, "open subflow")

    def destroy_subflow(
        self, token: int, local: str, local_port: int, remote: str, remote_port: int, *, socket_family: int
    ) -> None:
        """Reset one subflow. ``socket_family`` 6 with IPv4 addresses names a v4-mapped one."""
        mapped = socket_family == 6
        self._send(
            Command.SUBFLOW_DESTROY,
            "close subflow",
            _address("MPTCP_PM_ATTR_ADDR", local, mapped=mapped, port=local_port),
            ("MPTCP_PM_ATTR_TOKEN", token),
            _address("MPTCP_PM_ATTR_ADDR_REMOTE", remote, mapped=mapped, port=remote_port),
        )

    def set_backup(
        self, token: int, local: str, local_port: int, remote: str, remote_port: int, *, backup: bool
    ) -> None:
        """Set a subflow's backup flag here and, with MP_PRIO, at the peer."""
        flags = AddressFlag.BACKUP if backup else 0
        self._send(
            Command.SET_FLAGS,
            "set backup flag",
            _address("MPTCP_PM_ATTR_ADDR", local, port=local_port, flags=flags),
            ("MPTCP_PM_ATTR_TOKEN", token),
            _address("MPTCP_PM_ATTR_ADDR_REMOTE", remote, port=remote_port),
        )

    def announce(self, token: int, ip: str, local_id: int) -> None:
        """Send ADD_ADDR; ``local_id`` is 1 to 255."""
        self._send(
            Command.ANNOUNCE,
            "announce address",
            _address("MPTCP_PM_ATTR_ADDR", ip, address_id=local_id, flags=AddressFlag.SIGNAL),
            ("MPTCP_PM_ATTR_TOKEN", token),
        )

    def withdraw(self, token: int, local_id: int) -> None:
        """Send RM_ADDR."""
        self._send(
            Command.REMOVE,
            "withdraw address",
            ("MPTCP_PM_ATTR_TOKEN", token),
            ("MPTCP_PM_ATTR_LOC_ID", local_id),
        )

    def _send(self, command: Command, what: str, *attributes: tuple[object, ...]) -> None:
        self._sequence += 1
        self._command(pack_command(self._family, self._sequence, command, *attributes), what)

    def _command(self, message: bytes, what: str) -> None:
        try:
            self._commands.send(message)
            answer = self._commands.recv(4096)
        except OSError as e:
            raise KernelRefused(what, e.errno or errno.EIO) from e
        error = -_ERROR.unpack_from(answer, 16)[0]
        if error:
            raise KernelRefused(what, error, _extended_ack(answer))


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


def _address(
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
        text = socket.inet_ntop(socket.AF_INET6, ip_bytes_mapped(ip))
        attrs.append(("MPTCP_PM_ADDR_ATTR_ADDR6", text))
    else:
        attrs.append(("MPTCP_PM_ADDR_ATTR_ADDR4", ip))
    if flags is not None:
        attrs.append(("MPTCP_PM_ADDR_ATTR_FLAGS", flags))
    if port:
        attrs.append(("MPTCP_PM_ADDR_ATTR_PORT", port))
    return attribute, {"attrs": attrs}, _NESTED


def _open_socket() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_GENERIC)
    sock.bind((0, 0))
    sock.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    return sock


def _resolve_family(sock: socket.socket) -> tuple[int, int]:
    """(family id, multicast group id of the events). Raises SystemUnfit on a kernel without MPTCP."""
    message = ctrlmsg()
    message["cmd"] = CTRL_CMD_GETFAMILY
    message["version"] = 1
    message["attrs"] = [("CTRL_ATTR_FAMILY_NAME", FAMILY)]
    message["header"]["type"] = GENL_ID_CTRL
    message["header"]["flags"] = NLM_F_REQUEST
    message.encode()
    sock.send(message.data)
    answer = ctrlmsg(sock.recv(1 << 16))
    answer.decode()
    if answer["header"]["type"] == NLMSG_ERROR:
        raise SystemUnfit(
            "this kernel has no mptcp_pm netlink family", "boot a kernel with CONFIG_MPTCP=y, 5.19 or newer"
        )
    groups = {
        group.get_attr("CTRL_ATTR_MCAST_GRP_NAME"): group.get_attr("CTRL_ATTR_MCAST_GRP_ID")
        for group in answer.get_attr("CTRL_ATTR_MCAST_GROUPS") or ()
    }
    if EVENT_GROUP not in groups:
        raise SystemUnfit("this kernel sends no MPTCP path-manager events", "boot Linux 5.19 or newer")
    return answer.get_attr("CTRL_ATTR_FAMILY_ID"), groups[EVENT_GROUP]


def _extended_ack(answer: bytes) -> str:
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
