# SPDX-License-Identifier: Apache-2.0
"""Every error that a user can meet: each says what went wrong and how to fix it.

Exceptions of libraries and of the kernel are translated into these at the boundary (``raise ... from``).
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Sequence
from dataclasses import dataclass


class PmError(Exception):
    """A failure that is not a bug. Its text is one line on which a user can act."""

    exit_status = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}: {self.remedy}" if self.remedy else self.message


SHORTAGES = {
    _errno.ENOSPC: "free some space there",
    _errno.EDQUOT: "free some space there",
    _errno.EROFS: "make it writable",
    _errno.EMFILE: "allow the service more open files (`LimitNOFILE=` in the unit, `ulimit -n`)",
    _errno.ENFILE: "allow more open files: sysctl -w fs.file-max=...",
    _errno.ENOMEM: "free some memory",
    _errno.EAGAIN: "allow more tasks (`TasksMax=` in the unit, the container's limit of pids, `ulimit -u`)",
}
"""What the system has not enough of, by errno, and what to do."""


def of_system(error: OSError) -> PmError:
    """A failure of the system that no part of the service explains better."""
    where = f"{error.filename}: " if error.filename else ""
    return PmError(f"{where}{error.strerror}", SHORTAGES.get(error.errno or 0, ""))


class SystemUnfit(PmError):
    """This kernel or the given privileges cannot run the service (exit status 3)."""

    exit_status = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a configuration file. ``line`` is 1-based, or 0 if no line is known."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class ConfigError(PmError):
    """A configuration that cannot be used. It carries every problem found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class NotFound(PmError):
    """A session, subflow or policy does not exist, or does not exist any more."""


class UnknownPath(PmError):
    """The service has not what a command asks for: it may be of another version."""


class SubflowFailed(PmError):
    """A subflow that the operator asked for was not established."""


class LimitReached(PmError):
    """There is as much as there can be."""


class KernelRefused(PmError):
    """The kernel answered a command with an error.

    ``errno`` is positive; ``reason`` is the kernel's extended acknowledgement, or "".
    """

    def __init__(self, action: str, errno: int, reason: str = "") -> None:
        self.action = action
        self.errno = errno
        self.reason = reason
        text = f"{action}: {self.errno_name}: {os.strerror(errno)}"
        super().__init__(f"{text} ({reason})" if reason else text)

    @property
    def errno_name(self) -> str:
        return _errno.errorcode.get(self.errno, str(self.errno))
