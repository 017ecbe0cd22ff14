# SPDX-License-Identifier: Apache-2.0
"""What the service asks of the kernel: Protocols that ``pm.linux`` implements. Terms as in ``pm.kernel``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from pm.kernel import CreateCommand, FinalFigures, RawEvent, SessionInfo, SubflowRecord
from pm.model import Subflow


class Commands(Protocol):
    """The events of every session, and the commands on one.

    A command returns when the kernel has executed it, which usually takes less than 0.1 ms. It raises
    KernelRefused with the kernel's errno and its extended acknowledgement: EINVAL for an unknown token
    and for a session of the kernel's own path manager. Port numbers are those of one subflow.
    """

    def fileno(self) -> int:
        """The descriptor that is readable when events wait."""

    def read_events(self, limit: int) -> Iterable[RawEvent]:
        """Events that wait, at most ``limit``; never blocks.

        Raises EventsLost where the kernel dropped some: it delivers nothing more until none waits.
        """

    def drain(self, limit: int) -> bool:
        """Take events that wait off the socket, some ``limit``, to be read later; True once none waits.

        Raises EventsLost like ``read_events``.
        """

    def backlog(self) -> int:
        """Events that were taken off the socket and not read yet: the descriptor says nothing of them."""

    def prepare_subflow(
        self, local: str, local_id: int, remote: str, remote_port: int, *, backup: bool, ifindex: int = 0
    ) -> CreateCommand:
        """The command that opens such a subflow on any session, from a source port that the kernel chooses.

        ``local_id`` is 0 to 255. ``ifindex`` binds the subflow to an interface, 0 does not.
        Nothing is sent. Raises OSError for text that is not an address.
        """

    def create_subflow(self, token: int, command: CreateCommand) -> None:
        """Start a subflow. SUB_ESTABLISHED or SUB_CLOSED tells how it went. Raises KernelRefused."""

    def arm(self, token: int, commands: Iterable[CreateCommand]) -> None:
        """Have these sent the moment the session's ESTABLISHED is read; ``RawEvent.outcomes`` tells more."""

    def disarm(self, token: int | None = None) -> None:
        """Forget what is armed for a session, or for all of them; no error where nothing is."""

    def destroy_subflow(
        self, token: int, local: str, local_port: int, remote: str, remote_port: int, *, socket_family: int
    ) -> None:
        """Reset one subflow. ``socket_family`` 6 with IPv4 addresses names a v4-mapped one.

        Raises KernelRefused, with ESRCH where there is no such subflow.
        """

    def set_backup(
        self, token: int, local: str, local_port: int, remote: str, remote_port: int, *, backup: bool
    ) -> None:
        """Set a subflow's backup flag here and, with MP_PRIO, at the peer. Raises KernelRefused."""

    def announce(self, token: int, ip: str, local_id: int, *, port: int = 0, backup: bool = False) -> None:
        """Send ADD_ADDR for a local address; ``local_id`` is 1 to 255. Raises KernelRefused.

        ``port`` is one that something listens on, 0 leaves it out. The peer's subflows to the address get
        the ``backup`` flag.
        """

    def withdraw(self, token: int, local_id: int) -> None:
        """Send RM_ADDR for an id that was announced or used, 1 to 255. Raises KernelRefused."""


class Diagnosis(Protocol):
    """Questions to sock_diag. The answers come at once; each question raises KernelRefused."""

    def session_infos(self, tokens: Sequence[int]) -> Sequence[SessionInfo | None]:
        """One answer per local token, in order; None where there is no such session."""

    def bytes_moved(self, token: int, subflows: Sequence[Subflow]) -> int:
        """Bytes of payload sent and received; 0 where the session is gone.

        ``subflows`` are the session's: before Linux 6.5 only they count, and only those that live.
        """

    def dump_subflows(self, *, opening: bool = False) -> Iterator[Sequence[SubflowRecord]]:
        """All subflows of this network namespace, a part at a time as the caller asks for it.

        A part takes the kernel a few milliseconds at most, and may be empty. A subflow can be missing or
        come twice. ``opening`` asks for those in SYN_SENT only.
        """

    def find_subflows(self, subflows: Sequence[Subflow | SubflowRecord]) -> Sequence[SubflowRecord | None]:
        """The sockets of subflows, by their 4-tuples; None where one is gone, or is no MPTCP subflow."""


class FinalFigureSource(Protocol):
    """What programs report of subflows whose socket is closed."""

    def fileno(self) -> int:
        """The descriptor that is readable while some wait."""

    def read_finals(self, limit: int) -> Sequence[FinalFigures]:
        """Those that wait, oldest first, at most ``limit``; never blocks. Raises KernelRefused."""
