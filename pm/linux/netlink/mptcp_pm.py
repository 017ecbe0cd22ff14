# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's MPTCP path-manager interface: events of all sessions, commands on one.

The kernel executes a command inside send(), so its answer is there when send() returns: commands are
plain calls, not coroutines.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NamedTuple, Self

from pyroute2.netlink import NLM_F_REQUEST, ctrlmsg

from pm.errors import KernelRefused, SystemUnfit
from pm.kernel import EventsLost, EventType, Prepared
from pm.linux.netlink.mptcp_pm_codec import (
    Event,
    address,
    complete,
    decode_event,
    error_of,
    extended_ack,
    pack_command,
    pack_create_subflow,
    prepare,
    token_attribute,
)
from pm.linux.netlink.mptcp_pm_messages import EVENT_GROUP, FAMILY, AddressFlag, Command

NETLINK_GENERIC = 16
GENL_ID_CTRL = 16
CTRL_CMD_GETFAMILY = 3
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NLMSG_ERROR = 2
ESTABLISHED = int(EventType.ESTABLISHED)  # looked up for every event
EVENT_BUFFER_BYTES = 16 << 20  # some 20,000 events between two turns of the loop


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
        receive, buffer, armed = self._events.recv_into, self._buffer, self._armed
        for _ in range(limit):
            try:
                length = receive(buffer)
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno == errno.ENOBUFS:
                    raise EventsLost from e
                raise
            # The kernel puts the token first: what is armed goes out before anything is decoded.
            commands = armed.pop(bytes(buffer[20:28]), None) if armed and buffer[16] == ESTABLISHED else None
            if commands:
                begin = time.perf_counter()
                data = bytes(buffer[:length])
                outcomes = [self._try(command) for command in commands]
                yield Message(ESTABLISHED, data, outcomes, time.perf_counter() - begin)
            else:
                yield Message(buffer[16], bytes(buffer[:length]))

    def arm(self, token: int, prepared: Iterable[Prepared]) -> None:
        """Have these subflows created the moment the session's ESTABLISHED is read."""
        self._armed[token_attribute(token)] = [complete(p, token) for p in prepared]

    def disarm(self, token: int | None = None) -> None:
        """Forget what is armed for a session; for all without ``token``."""
        if token is None:
            self._armed.clear()
        else:
            self._armed.pop(token_attribute(token), None)

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
        return prepare(
            pack_create_subflow(self._family, 0, 0, local, local_id, remote, remote_port, backup=backup)
        )

    def create_subflow(self, token: int, prepared: Prepared) -> None:
        """Start the subflow; an event tells whether it was established."""
        self._command(complete(prepared, token), "open subflow")

    def destroy_subflow(
        self, token: int, local: str, local_port: int, remote: str, remote_port: int, *, socket_family: int
    ) -> None:
        """Reset one subflow. ``socket_family`` 6 with IPv4 addresses names a v4-mapped one."""
        mapped = socket_family == 6
        self._send(
            Command.SUBFLOW_DESTROY,
            "close subflow",
            address("MPTCP_PM_ATTR_ADDR", local, mapped=mapped, port=local_port),
            ("MPTCP_PM_ATTR_TOKEN", token),
            address("MPTCP_PM_ATTR_ADDR_REMOTE", remote, mapped=mapped, port=remote_port),
        )

    def set_backup(
        self, token: int, local: str, local_port: int, remote: str, remote_port: int, *, backup: bool
    ) -> None:
        """Set a subflow's backup flag here and, with MP_PRIO, at the peer."""
        flags = AddressFlag.BACKUP if backup else 0
        self._send(
            Command.SET_FLAGS,
            "set backup flag",
            address("MPTCP_PM_ATTR_ADDR", local, port=local_port, flags=flags),
            ("MPTCP_PM_ATTR_TOKEN", token),
            address("MPTCP_PM_ATTR_ADDR_REMOTE", remote, port=remote_port),
        )

    def announce(self, token: int, ip: str, local_id: int) -> None:
        """Send ADD_ADDR; ``local_id`` is 1 to 255."""
        self._send(
            Command.ANNOUNCE,
            "announce address",
            address("MPTCP_PM_ATTR_ADDR", ip, address_id=local_id, flags=AddressFlag.SIGNAL),
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
        error = error_of(answer)
        if error:
            raise KernelRefused(what, error, extended_ack(answer))


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
            "this kernel has no mptcp_pm netlink family", "boot Linux 5.19 or newer with CONFIG_MPTCP=y"
        )
    groups = {
        group.get_attr("CTRL_ATTR_MCAST_GRP_NAME"): group.get_attr("CTRL_ATTR_MCAST_GRP_ID")
        for group in answer.get_attr("CTRL_ATTR_MCAST_GROUPS") or ()
    }
    if EVENT_GROUP not in groups:
        raise SystemUnfit("this kernel sends no MPTCP path-manager events", "boot Linux 5.19 or newer")
    return answer.get_attr("CTRL_ATTR_FAMILY_ID"), groups[EVENT_GROUP]
