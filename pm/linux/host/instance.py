# SPDX-License-Identifier: GPL-2.0-only
"""One service per network namespace: the path-manager sysctl and the sessions have a single owner."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pm.errors import PmError, SystemUnfit


def namespace_file(state_directory: Path, name: str) -> Path:
    """A file about this network namespace; another one may have had it before, and its inode number."""
    return state_directory / f"{name}-{os.stat('/proc/thread-self/ns/net').st_ino}.json"


@contextmanager
def only_instance(state_directory: Path) -> Iterator[None]:
    """Hold this namespace's lock. The kernel releases it when the process ends, however it ends.

    Raises PmError if another service holds the lock, SystemUnfit if the directory cannot be used.
    """
    file = state_directory / f"lock-{os.stat('/proc/thread-self/ns/net').st_ino}"
    lock = _lock(file)
    try:
        # Only shown to whoever finds the lock taken: a full disk is no reason not to start.
        with suppress(OSError):
            os.truncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
        file.unlink(missing_ok=True)
    finally:
        os.close(lock)


def _lock(file: Path) -> int:
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise SystemUnfit(
                f"{file.parent} cannot be written ({e.strerror})", "run as root, or make it writable"
            ) from e
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if file.exists() and os.path.samestat(os.fstat(lock), file.stat()):
                return lock
        except BlockingIOError as e:
            owner = os.pread(lock, 16, 0).decode(errors="replace").strip()
            os.close(lock)
            raise PmError(
                f"mptcp-pm is already running in this network namespace (pid {owner})",
                "stop it first, or run `mptcp-pm reload`",
            ) from e
        os.close(lock)  # its owner has just ended and removed the file
