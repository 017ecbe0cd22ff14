# SPDX-License-Identifier: GPL-2.0-only
"""The namespace's path-manager sysctl: "userspace" while the service runs, then what it was before.

It decides about sessions that begin; living ones keep their path manager. /proc/sys/net shows the
network namespace of the reader, so this acts on the one the service runs in.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pm.errors import SystemUnfit

SYSCTLS = Path("/proc/sys/net/mptcp")


class Spelling(NamedTuple):
    """A sysctl below net.mptcp and its value for path managers in user space."""

    name: str
    userspace: str

    @property
    def command(self) -> str:
        return f"sysctl -w net.mptcp.{self.name}={self.userspace}"


SPELLINGS = (
    Spelling("path_manager", "userspace"),  # newer kernels have both
    Spelling("pm_type", "1"),  # since Linux 5.19
)


def find_spelling(sysctls: Path = SYSCTLS) -> Spelling | None:
    """The newest that this kernel has; None before Linux 5.19 or without MPTCP."""
    return next((spelling for spelling in SPELLINGS if (sysctls / spelling.name).exists()), None)


class PathManagerSysctl:
    """Context manager. ``state_directory`` keeps the original value for a start after SIGKILL.

    Raises SystemUnfit on entry where the kernel has no such sysctl, or does not let us write it.
    """

    def __init__(self, state_directory: Path, sysctls: Path = SYSCTLS) -> None:
        self._state_directory = state_directory
        self._sysctls = sysctls

    def __enter__(self) -> Self:
        self._locate()
        current = self._file.read_text().strip()
        if current != self._spelling.userspace:
            self._remember(current)
            self._original = current
            self._switch()
        else:
            # Set by an administrator, or by a service that was killed and left its note.
            self._original = self._recall() or current
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def restore_left(self) -> None:
        """Give back what a service that was killed had changed, where this one needs no change."""
        self._locate()
        if original := self._recall():
            self._original = original
            self._restore()

    def _locate(self) -> None:
        spelling = find_spelling(self._sysctls)
        if spelling is None:
            raise SystemUnfit(
                "the kernel has no MPTCP path managers in user space",
                "boot Linux 5.19 or newer with CONFIG_MPTCP=y",
            )
        self._spelling = spelling
        self._file = self._sysctls / spelling.name
        # An inode number names a network namespace, until it is gone.
        inode = os.stat("/proc/thread-self/ns/net").st_ino
        self._state = self._state_directory / f"path-manager-{inode}.json"

    def _restore(self) -> None:
        # Somebody else's change while we ran stays.
        if self._file.read_text().strip() == self._spelling.userspace != self._original:
            self._file.write_text(self._original)
        self._state.unlink(missing_ok=True)

    def _switch(self) -> None:
        try:
            self._file.write_text(self._spelling.userspace)
        except OSError as e:
            self._state.unlink(missing_ok=True)
            raise SystemUnfit(
                f"net.mptcp.{self._spelling.name} is {self._original!r} and cannot be set ({e.strerror})",
                f"run `{self._spelling.command}` in this network namespace, "
                "or name it among the container's sysctls",
            ) from e

    def _remember(self, value: str) -> None:
        try:
            self._state_directory.mkdir(parents=True, exist_ok=True)
            partial = self._state.with_suffix(".new")
            partial.write_text(json.dumps({self._spelling.name: value}))
            partial.replace(self._state)
        except OSError as e:
            raise SystemUnfit(
                f"{self._state_directory} cannot be written ({e.strerror})",
                "run as root, or make it writable",
            ) from e

    def _recall(self) -> str | None:
        try:
            value = json.loads(self._state.read_text())[self._spelling.name]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return value if isinstance(value, str) else None
