# SPDX-License-Identifier: GPL-2.0-only
"""What the service needs of the kernel, as Protocols: ``pm.linux`` implements them.

IP addresses are canonical text; ``family`` and ``socket_family`` are 4 or 6, that of the socket
also where its addresses are v4-mapped (their text is IPv4 then).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from pm.errors import KernelRefused
from pm.model import Subflow


class EventType(IntEnum):
    """enum mptcp_event_type (include/uapi/linux/mptcp_pm.h)."""

    CREATED = 1
    ESTABLISHED = 2
    CLOSED = 3
    ANNOUNCED = 6
    REMOVED = 7
    SUB_ESTABLISHED = 10
    SUB_CLOSED = 11
    SUB_PRIORITY = 13
    LISTENER_CREATED = 15
    LISTENER_CLOSED = 16


class EventsLost(Exception):
    """The kernel dropped events (ENOBUFS): dump and compare."""


class OfSubflow(Protocol):
    """Which subflow of which session."""

    @property
    def token(self) -> int: ...
    @property
    def local(self) -> str: ...
    @property
    def local_port(self) -> int: ...
    @property
    def remote(self) -> str: ...
    @property
    def remote_port(self) -> int: ...
    @property
    def local_id(self) -> int: ...
    @property
    def remote_id(self) -> int: ...


class Event(OfSubflow, Protocol):
    """One event of the group mptcp_pm_events. Fields that its type does not carry are 0 or "".

    ``error`` is an errno, ``reset_reason`` that of MP_TCPRST (RFC 8684, section 3.6) or -1.
    """

    @property
    def type(self) -> int: ...
    @property
    def family(self) -> int: ...
    @property
    def backup(self) -> bool: ...
    @property
    def error(self) -> int: ...
    @property
    def reset_reason(self) -> int: ...
    @property
    def server_side(self) -> bool: ...
    @property
    def deny_join_id0(self) -> bool: ...


class Message(Protocol):
    """An event as it came. Decoding waits until somebody needs it.

    ``outcomes`` is what became of the commands armed for it, one by one, and ``took_s`` the time
    from reading the event to having sent them; None and 0 where nothing was armed.
    """

    @property
    def type(self) -> int: ...
    @property
    def outcomes(self) -> Sequence[KernelRefused | None] | None: ...
    @property
    def took_s(self) -> float: ...
    def decode(self) -> Event: ...


class Found(OfSubflow, Protocol):
    """One subflow of a sock_diag dump. ``opened_here``: this end sent its SYN."""

    @property
    def socket_family(self) -> int: ...
    @property
    def cgroup_id(self) -> int: ...
    @property
    def is_initial(self) -> bool: ...
    @property
    def is_established(self) -> bool: ...
    @property
    def is_closing(self) -> bool: ...
    @property
    def is_fully_established(self) -> bool: ...
    @property
    def opened_here(self) -> bool: ...
    @property
    def backup(self) -> bool: ...
    @property
    def peer_backup(self) -> bool: ...


class SessionFigures(Protocol):
    """A session as sock_diag knows it by its token."""

    @property
    def cgroup_id(self) -> int: ...


class Prepared(NamedTuple):
    """A command but for the token: what comes before it, and after."""

    head: bytes
    tail: bytes


class Commands(Protocol):
    """The events of every session and the commands on one; commands raise KernelRefused."""

    def fileno(self) -> int: ...
    def read_events(self, limit: int) -> Iterable[Message]: ...
    def prepare_subflow(
        self, local: str, local_id: int, remote: str, remote_port: int, *, backup: bool
    ) -> Prepared:
        """The command that opens such a subflow on any session, for ``create_subflow``."""

    def create_subflow(self, token: int, prepared: Prepared) -> None: ...
    def arm(self, token: int, prepared: Iterable[Prepared]) -> None:
        """Have these sent the moment the session's ESTABLISHED is read."""

    def disarm(self, token: int | None = None) -> None:
        """Forget what is armed for a session; for all without ``token``."""

    def destroy_subflow(
        self, token: int, local: str, local_port: int, remote: str, remote_port: int, *, socket_family: int
    ) -> None: ...
    def set_backup(
        self, token: int, local: str, local_port: int, remote: str, remote_port: int, *, backup: bool
    ) -> None: ...
    def announce(self, token: int, ip: str, local_id: int) -> None: ...
    def withdraw(self, token: int, local_id: int) -> None: ...


class Diagnosis(Protocol):
    """Questions to sock_diag."""

    def session_infos(self, tokens: Sequence[int]) -> Sequence[SessionFigures | None]:
        """One answer per local token, in order; None where there is no such session."""

    def bytes_moved(self, token: int, subflows: Sequence[Subflow]) -> int:
        """Payload sent and received; 0 where the session is gone."""

    def dump_subflows(self) -> Iterable[Found]: ...
    def subflow_exists(self, subflow: Subflow) -> bool: ...
    def find_subflow(self, subflow: Subflow) -> Found | None:
        """The socket of a subflow, by its 4-tuple."""
