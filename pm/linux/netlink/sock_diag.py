# SPDX-License-Identifier: Apache-2.0
"""Asking the kernel about MPTCP sessions and their TCP subflows (NETLINK_SOCK_DIAG).

The kernel answers a look-up inside send() and fills the next part of a dump inside recv(): nothing
here waits, so look-ups are plain calls.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from types import TracebackType
from typing import Self

from pm.errors import KernelRefused
from pm.kernel import SessionInfo, SubflowRecord
from pm.linux.netlink import framing
from pm.linux.netlink.framing import NetlinkMessage
from pm.linux.netlink.inet_diag_answers import (
    SubflowStats,
    parse_session_info,
    parse_storage,
    parse_subflow,
    parse_subflow_stats,
    read_part,
)
from pm.linux.netlink.inet_diag_requests import (
    NETLINK_SOCK_DIAG,
    dump_request,
    lookup_request,
    protocol_request,
    session_request,
    storages_request,
)
from pm.model import Subflow

BATCH = 64  # look-ups in one send(): their answers fit the receive buffer also where it is limited
RECEIVE_BUFFER_BYTES = 1 << 20
RECEIVE_BYTES = 64 << 10  # no part of a dump is larger
DUMP_ATTEMPTS = 5


def _no_interface(ip: str) -> int:
    return 0


class SockDiag:
    """Sessions and subflows of this network namespace (pm.kernel_protocols.Diagnosis). Holds a socket.

    ``interface_of`` gives the index of the interface with a local address, ``vrf_of`` that of the interface's
    VRF, 0 for unknown: without them, sockets that are bound are found by look-up only where the record or
    subflow says to what.
    Raises KernelRefused where the kernel answers with an error other than "no such socket".
    """

    def __init__(
        self, sock: socket.socket, interface_of: Callable[[str], int], vrf_of: Callable[[str], int]
    ) -> None:
        self._socket = sock
        self._interface_of = interface_of
        self._vrf_of = vrf_of

    @classmethod
    def open(
        cls,
        interface_of: Callable[[str], int] = _no_interface,
        vrf_of: Callable[[str], int] = _no_interface,
    ) -> Self:
        """In the calling thread's network namespace."""
        return cls(_open(), interface_of, vrf_of)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def subflow_stats(self, subflows: Sequence[Subflow]) -> list[SubflowStats | None]:
        """One answer per subflow, in order; None where there is no such socket, or it is in TIME_WAIT."""
        return [
            message and parse_subflow_stats(data, message)
            for data, message in self._look_up_subflows(subflows)
        ]

    def find_subflows(self, subflows: Sequence[Subflow | SubflowRecord]) -> list[SubflowRecord | None]:
        """The sockets of subflows, by their 4-tuples; None where one is gone, or is no MPTCP subflow."""
        return [
            message and parse_subflow(data, message) for data, message in self._look_up_subflows(subflows)
        ]

    def session_infos(self, tokens: Sequence[int]) -> list[SessionInfo | None]:
        """One answer per local token, in order; None where there is no such session."""
        answers = self._look_up([session_request(token) for token in tokens])
        return [message and parse_session_info(data, message) for data, message in answers]

    def session_figures(self, token: int) -> SessionInfo | None:
        """What the kernel counts of one session."""
        return self.session_infos((token,))[0]

    def bytes_moved(self, token: int, subflows: Sequence[Subflow]) -> int:
        """Payload sent and received. Before Linux 6.5 only the subflows count, and only those that live."""
        figures = self.session_figures(token)
        if figures is None:
            return 0
        if figures.counted:
            return figures.bytes_sent + figures.bytes_received
        return sum(s.bytes_sent + s.bytes_received for s in self.subflow_stats(subflows) if s)

    def dump_subflows(self, *, opening: bool = False) -> Iterator[list[SubflowRecord]]:
        """All MPTCP subflows, or those in SYN_SENT, read part by part as the caller asks for them.

        A subflow that opens meanwhile may be missing, and one can come twice: where the kernel calls its
        dump inconsistent, it is read once more.
        """
        for family in (socket.AF_INET, socket.AF_INET6):
            for _ in range(DUMP_ATTEMPTS):
                done = interrupted = False
                # A socket of its own: it runs one dump at a time, and look-ups go on meanwhile.
                with _open() as sock:
                    sock.send(dump_request(family, opening=opening))
                    while not done:
                        records: list[SubflowRecord] = []
                        done, inconsistent = read_part(_receive_part(sock), records, parse_subflow)
                        interrupted = interrupted or inconsistent
                        yield records
                if not interrupted:
                    break

    def _look_up_subflows(
        self, subflows: Sequence[Subflow | SubflowRecord]
    ) -> list[tuple[bytes, NetlinkMessage | None]]:
        interface_of = self._interface_of
        # IPv4 text finds v4-mapped sockets too.
        answers = self._look_up(
            [
                lookup_request(
                    s.local, s.local_port, s.remote, s.remote_port, s.ifindex or interface_of(s.local)
                )
                for s in subflows
            ]
        )
        # A socket that is bound to a VRF is found by the VRF's index only.
        again = [
            (at, lookup_request(s.local, s.local_port, s.remote, s.remote_port, vrf))
            for at, s in enumerate(subflows)
            if answers[at][1] is None and (vrf := self._vrf_of(s.local)) and vrf != s.ifindex
        ]
        for (at, _), answer in zip(again, self._look_up([r for _, r in again]), strict=True):
            answers[at] = answer
        return answers

    def _look_up(self, requests: Sequence[bytes]) -> list[tuple[bytes, NetlinkMessage | None]]:
        """The answer to each request, in order; None for ENOENT."""
        answers: list[tuple[bytes, NetlinkMessage]] = []
        try:
            for first in range(0, len(requests), BATCH):
                batch = requests[first : first + BATCH]
                self._socket.send(b"".join(batch))
                # The kernel has answered them one by one, in order, each with one message.
                for _ in batch:
                    data = self._socket.recv(RECEIVE_BYTES)
                    message = framing.message_at(data, 0)
                    if message is None:
                        raise OSError(errno.EBADMSG, "an answer that is not a whole message")
                    answers.append((data, message))
        except OSError as e:
            # An answer is missing: a new socket, since the next look-up must not find the others in this one.
            self._socket.close()
            self._socket = _open()
            raise KernelRefused("looking up sockets", e.errno or 0) from e
        return [(data, message if _found(data, message) else None) for data, message in answers]


def read_storages(map_fd: int, ports: Collection[tuple[int, int]]) -> dict[int, bytes]:
    """Values of an sk_storage map by cookie, for the TCP sockets with one of these (local, remote) ports.

    One walk over all sockets for each family. Raises KernelRefused.
    """
    found: list[tuple[int, bytes]] = []
    if not ports:  # the kernel refuses an empty filter
        return {}
    for family in (socket.AF_INET, socket.AF_INET6):
        with _open() as sock:
            sock.send(storages_request(family, map_fd, ports))
            done = False
            while not done:
                done, _ = read_part(_receive_part(sock), found, parse_storage)
    return dict(found)


def can_diagnose(protocol: int) -> bool:
    """Whether the kernel has tcp_diag (IPPROTO_TCP), mptcp_diag (IPPROTO_MPTCP), loaded on demand."""
    try:
        with _open() as sock:
            sock.send(protocol_request(protocol))
            read_part(sock.recv(RECEIVE_BYTES), [], parse_subflow)
    except (OSError, KernelRefused):
        return False
    return True


def _open() -> socket.socket:
    try:
        return framing.open_socket(NETLINK_SOCK_DIAG, receive_buffer_bytes=RECEIVE_BUFFER_BYTES)
    except OSError as e:
        raise KernelRefused("opening a socket of sock_diag", e.errno or 0) from e


def _receive_part(sock: socket.socket) -> bytes:
    try:
        return sock.recv(RECEIVE_BYTES)
    except OSError as e:
        raise KernelRefused("listing sockets", e.errno or 0) from e


def _found(data: bytes, message: NetlinkMessage) -> bool:
    if message.type != framing.NLMSG_ERROR:
        return True
    code = framing.error_of(data, message)
    if code != errno.ENOENT:
        raise KernelRefused("looking up sockets", code)
    return False
