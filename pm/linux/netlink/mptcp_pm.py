# SPDX-License-Identifier: Apache-2.0
"""The kernel's MPTCP path-manager interface: events of all sessions, commands on one.

The kernel executes a command inside send(), and its answer is there when send() returns: commands are
plain calls, not coroutines.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from pm.errors import KernelRefused, SystemUnfit
from pm.kernel import CreateCommand, EventsLost, EventType, RawEvent
from pm.linux.netlink import framing, mptcp_pm_codec
from pm.linux.netlink.generic_netlink import NETLINK_GENERIC, find_family
from pm.linux.netlink.many_messages import ManyMessages
from pm.linux.netlink.mptcp_pm_codec import complete, decode_event, pack_create_subflow, token_attribute
from pm.linux.netlink.mptcp_pm_messages import EVENT_GROUP, FAMILY

NETLINK_ADD_MEMBERSHIP = 1
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
ESTABLISHED, CLOSED = int(EventType.ESTABLISHED), int(EventType.CLOSED)  # looked up for every event
EVENT_BUFFER_BYTES = 16 << 20  # some 20,000 events between two turns of the loop


class PathManagerSocket:
    """Both ends of the family ``mptcp_pm`` in this process's network namespace.

    Implements pm.kernel_protocols.Commands.
    Raises SystemUnfit on a kernel without MPTCP, or whose path managers cannot be in user space.
    """

    def __init__(self, family_id: int, commands: socket.socket, events: socket.socket) -> None:
        self._family_id = family_id
        self._commands = commands
        self._events = events
        self._armed: dict[bytes, list[bytes]] = {}
        self._backlog: deque[bytes] = deque()
        self._over: set[bytes] = set()
        """The sessions whose CLOSED is in the backlog: the attribute with their token."""
        self._buffer = memoryview(bytearray(1 << 16))
        self._many = ManyMessages()

    @classmethod
    def open(cls, event_buffer_bytes: int = EVENT_BUFFER_BYTES) -> Self:
        """In the calling thread's network namespace. Raises SystemUnfit where the kernel has no mptcp_pm."""
        family_id, group = _find_family()
        with ExitStack() as stack:
            commands = stack.enter_context(framing.open_socket(NETLINK_GENERIC))
            commands.setsockopt(framing.SOL_NETLINK, NETLINK_CAP_ACK, 1)
            commands.setsockopt(framing.SOL_NETLINK, NETLINK_EXT_ACK, 1)
            events = stack.enter_context(
                framing.open_socket(NETLINK_GENERIC, receive_buffer_bytes=event_buffer_bytes)
            )
            events.setsockopt(framing.SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
            stack.pop_all()
        return cls(family_id, commands, events)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._events.close()
        self._commands.close()

    def fileno(self) -> int:
        """The event socket, for the event loop."""
        return self._events.fileno()

    def backlog(self) -> int:
        return len(self._backlog)

    def read_events(self, limit: int = 256) -> Iterator[RawEvent]:
        """The events that wait, at most ``limit``. Raises EventsLost where the kernel dropped some."""
        receive, buffer, armed, backlog = self._events.recv_into, self._buffer, self._armed, self._backlog
        for _ in range(limit):
            if backlog:
                data = backlog.popleft()
                token = data[20:28]
                armed.pop(token, None)  # too late: planned as it is found
                over = token in self._over
                if over and data[16] == CLOSED:
                    self._over.discard(token)
                yield RawEvent(data[16], data, decode_event, over=over)
                continue
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
                outcomes = [self._try_open(command) for command in commands]
                yield RawEvent(ESTABLISHED, data, decode_event, outcomes, time.perf_counter() - begin)
            else:
                yield RawEvent(buffer[16], bytes(buffer[:length]), decode_event)

    def drain(self, limit: int) -> bool:
        """Put events that wait into the backlog, ``limit`` or a few more. True once none waits.

        Raises EventsLost.
        """
        fd, over, backlog = self._events.fileno(), self._over, self._backlog
        ends = len(backlog) + limit
        while len(backlog) < ends:
            try:
                received = self._many.receive(fd)
            except BlockingIOError:
                return True
            except OSError as e:
                if e.errno == errno.ENOBUFS:
                    raise EventsLost from e
                raise
            backlog.extend(received)
            over.update([data[20:28] for data in received if data[16] == CLOSED])
        return False

    def arm(self, token: int, commands: Iterable[CreateCommand]) -> None:
        """Have these subflows created the moment the session's ESTABLISHED is read."""
        self._armed[token_attribute(token)] = [complete(command, token) for command in commands]

    def disarm(self, token: int | None = None) -> None:
        """Forget what is armed for a session; for all without ``token``."""
        if token is None:
            self._armed.clear()
        else:
            self._armed.pop(token_attribute(token), None)

    def _try_open(self, message: bytes) -> KernelRefused | None:
        try:
            self._send(message, "open subflow")
        except KernelRefused as e:
            return e
        return None

    # Commands: pm.kernel_protocols.Commands says what each does and raises.

    def prepare_subflow(
        self, local: str, local_id: int, remote: str, remote_port: int, *, backup: bool, ifindex: int = 0
    ) -> CreateCommand:
        return pack_create_subflow(
            self._family_id, local, local_id, remote, remote_port, backup=backup, ifindex=ifindex
        )

    def create_subflow(self, token: int, command: CreateCommand) -> None:
        self._send(complete(command, token), "open subflow")

    def destroy_subflow(
        self, token: int, local: str, local_port: int, remote: str, remote_port: int, *, socket_family: int
    ) -> None:
        message = mptcp_pm_codec.pack_destroy_subflow(
            self._family_id, token, local, local_port, remote, remote_port, socket_family=socket_family
        )
        self._send(message, "close subflow")

    def set_backup(
        self, token: int, local: str, local_port: int, remote: str, remote_port: int, *, backup: bool
    ) -> None:
        message = mptcp_pm_codec.pack_set_backup(
            self._family_id, token, local, local_port, remote, remote_port, backup=backup
        )
        self._send(message, "set backup flag")

    def announce(self, token: int, ip: str, local_id: int, *, port: int = 0, backup: bool = False) -> None:
        message = mptcp_pm_codec.pack_announce(self._family_id, token, ip, local_id, port=port, backup=backup)
        self._send(message, "announce address")

    def withdraw(self, token: int, local_id: int) -> None:
        self._send(mptcp_pm_codec.pack_withdraw(self._family_id, token, local_id), "withdraw address")

    def _send(self, message: bytes, what: str) -> None:
        try:
            self._commands.send(message)
            data = self._commands.recv(4096)
        except OSError as e:
            raise KernelRefused(what, e.errno or errno.EIO) from e
        answer = framing.message_at(data, 0)
        if answer is None:
            raise KernelRefused(what, errno.EBADMSG)
        error = framing.error_of(data, answer)
        if error:
            raise KernelRefused(what, error, framing.extended_ack(data, answer))


def _find_family() -> tuple[int, int]:
    """Ids of the family and of the multicast group of its events. Raises SystemUnfit."""
    try:
        family = find_family(FAMILY)
    except OSError as e:
        raise SystemUnfit(
            "this kernel has no mptcp_pm netlink family", "boot Linux 5.19 or newer with CONFIG_MPTCP=y"
        ) from e
    if EVENT_GROUP not in family.groups:
        raise SystemUnfit("this kernel sends no MPTCP path-manager events", "boot Linux 5.19 or newer")
    return family.id, family.groups[EVENT_GROUP]
