# SPDX-License-Identifier: Apache-2.0
"""One service per network namespace: the path-manager sysctl and the sessions have a single owner.

Two locks, which the kernel releases when the process ends, however it ends: the name of an abstract Unix
socket, which belongs to the network namespace, and flock() on the directory with the namespace's pins,
for whoever shares the bpffs. Neither depends on a /run or a pid namespace that two containers share.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pm.errors import PmError, SystemUnfit
from pm.linux.host.netns import netns_cookie
from pm.linux.host.remedies import where_it_runs
from pm.log import get_logger
from pm.upkeep import Change

NAME = "\0mptcp-pm"
_UCRED = struct.Struct("=iII")  # struct ucred, include/linux/socket.h
_ATTEMPTS, _INTERVAL_S = 50, 0.02

log = get_logger()


def namespace_file(state_directory: Path, name: str, suffix: str = ".json") -> Path:
    """A file about this network namespace, until reboot."""
    return state_directory / f"{name}-{netns_cookie()}{suffix}"


def check_state_directory(directory: Path) -> None:
    """Make it, where it is missing. Raises SystemUnfit where it cannot be written."""
    reason = "no permission, or a read-only file system"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
            return
    except OSError as e:
        reason = e.strerror or reason
    raise SystemUnfit(
        f"the state directory {directory} cannot be written ({reason})",
        where_it_runs(
            host="run as root, or give another with --state-directory",
            container=f"mount a tmpfs on it (`--tmpfs {directory}`, in Kubernetes an emptyDir), "
            "or give another with --state-directory",
        ),
    )


class AlreadyRunning(PmError):
    """Another service has this network namespace."""


class Instance:
    """A context in which this is the only service of the calling thread's network namespace."""

    def __init__(self, pins: Path | None) -> None:
        """``pins`` is the directory for the namespace's pins; None without a bpffs.

        Entering raises AlreadyRunning if another service is there.
        """
        self._pins = pins
        self._name: socket.socket | None = None
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self._name = _claim()
        try:
            if self._pins:
                with suppress(OSError):  # nothing can be pinned there either, and that is reported
                    self._pins.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_pins()
        except PmError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None and self._pins:
            for directory in (self._pins, self._pins.parent):
                with suppress(OSError):  # there are pins in it, of ours or of others
                    directory.rmdir()
            os.close(self._lock)
            self._lock = None
        if self._name:
            self._name.close()
            self._name = None

    async def look(self) -> dict[str, Change]:
        """Lock the directory again if it is another one now (``pm.upkeep.Kept``); nothing to report.

        It is not made again: whoever removed the pins may want none.
        """
        await asyncio.to_thread(self._lock_pins)
        return {}

    def _lock_pins(self) -> None:
        if self._pins is None or (self._lock is not None and _is_at(self._lock, self._pins)):
            return
        try:
            lock = lock_directory(self._pins)
        except OSError:  # it is not there
            return
        if lock is None:
            raise _already_running(f"it holds {self._pins}")
        if self._lock is not None:
            os.close(self._lock)
        self._lock = lock


def lock_directory(directory: Path) -> int | None:
    """A descriptor that holds the directory's lock; None if another one does. Raises OSError."""
    while True:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_at(descriptor, directory):
            return descriptor
        os.close(descriptor)  # its holder has just ended and removed the directory


class _Holder(NamedTuple):
    """SO_PEERCRED of the socket that has the name; ``pid`` is 0 in another pid namespace."""

    pid: int
    uid: int
    gid: int


def _claim() -> socket.socket | None:
    """The socket that has the namespace's name; None where somebody has it who is no service of ours."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    holder = None
    for _ in range(_ATTEMPTS):
        try:
            claim.bind(NAME)
        except OSError:
            holder = _find_holder()
        else:
            claim.listen()
            return claim
        if holder:
            break
        time.sleep(_INTERVAL_S)  # a service that has just bound does not listen yet
    claim.close()
    if holder and holder.uid in (0, os.geteuid()):
        raise _already_running(f"pid {holder.pid}" if holder.pid else "in another container")
    # Names need no privilege: an ordinary user must not keep the service from starting.
    log.warning(
        "lock_held_by_another_user",
        name="@" + NAME[1:],
        uid=holder.uid if holder else None,
        pid=holder.pid if holder else None,
        reason="it is no service of root or of our own user: the start goes on",
    )
    return None


def _find_holder() -> _Holder | None:
    """None where nobody listens, or the holder's queue is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as question:
        try:
            question.connect(NAME)
        except OSError:
            return None
        credentials = question.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return _Holder(*_UCRED.unpack(credentials))


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _already_running(where: str) -> AlreadyRunning:
    return AlreadyRunning(
        f"mptcp-pm is already running in this network namespace ({where})",
        where_it_runs(
            host="stop it first, or run `mptcp-pm reload`",
            container="stop it first: one sidecar serves all containers of a pod",
        ),
    )
