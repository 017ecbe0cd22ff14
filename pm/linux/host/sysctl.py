# SPDX-License-Identifier: Apache-2.0
"""The namespace's path-manager sysctl: "userspace" while the service runs, then its former value.

The sysctl applies to sessions that begin; existing ones keep their path manager. /proc/sys/net shows
the network namespace of its reader, which is the one that the service runs in.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pm.errors import PmError, SystemUnfit
from pm.linux.host.instance import namespace_file
from pm.linux.host.notes import BOOT_ID
from pm.linux.host.remedies import kernel_remedy, sysctl_remedy
from pm.upkeep import Change

SYSCTLS = Path("/proc/sys/net/mptcp")


class Spelling(NamedTuple):
    """The name of a sysctl below net.mptcp, and its value for path managers in user space."""

    name: str
    userspace: str

    @property
    def setting(self) -> str:
        """As sysctl(8) takes it."""
        return f"net.mptcp.{self.name}={self.userspace}"


SPELLINGS = (
    Spelling("path_manager", "userspace"),  # newer kernels have both
    Spelling("pm_type", "1"),  # since Linux 5.19
)


def find_spelling(sysctls: Path = SYSCTLS) -> Spelling | None:
    """The newest spelling that this kernel knows; None before Linux 5.19 or without MPTCP."""
    return next((spelling for spelling in SPELLINGS if (sysctls / spelling.name).exists()), None)


class PathManagerSysctl:
    """Sets the namespace's path managers to user space, and back; also as a context.

    ``state_directory`` keeps the original value for a start after SIGKILL.
    """

    def __init__(self, state_directory: Path, sysctls: Path = SYSCTLS) -> None:
        self._state_directory = state_directory
        self._sysctls = sysctls
        self._original: str | None = None

    def __enter__(self) -> Self:
        self.hold()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def hold(self) -> None:
        """Set it, if that is not done yet.

        Raises SystemUnfit if the kernel has no such sysctl, or if the sysctl or the directory cannot be
        written.
        """
        if self._original is not None:
            return
        sysctl = _locate(self._state_directory, self._sysctls)
        current = sysctl.value()
        if current != sysctl.spelling.userspace:
            sysctl.remember(current)
            sysctl.switch(current)
            self._original = current
        else:
            # An administrator set it, or a service that was killed and left its note.
            self._original = sysctl.recall() or current

    def release(self) -> None:
        """Set it back to what it was before ``hold``; without it nothing happens."""
        if self._original is None:
            return
        original, self._original = self._original, None
        _locate(self._state_directory, self._sysctls).restore(original)

    async def look(self) -> dict[str, Change]:
        """A change if the sysctl is held and somebody set it otherwise (``pm.upkeep.Kept``)."""
        if self._original is None:
            return {}
        sysctl = await asyncio.to_thread(_locate, self._state_directory, self._sysctls)
        value = await asyncio.to_thread(sysctl.value)
        if value == sysctl.spelling.userspace:
            return {}

        async def restore() -> None:
            try:
                await asyncio.to_thread(sysctl.file.write_text, sysctl.spelling.userspace)
            except OSError as e:
                raise PmError(
                    f"it cannot be set ({e.strerror})", sysctl_remedy(sysctl.spelling.setting)
                ) from e

        return {f"net.mptcp.{sysctl.spelling.name}": Change(f"is {value!r}", restore)}

    def restore_left(self) -> str | None:
        """Undo the change of a service that was killed. Returns ``NAME=VALUE``, None where there is none.

        Raises SystemUnfit if the kernel has no such sysctl, PmError if it cannot be written.
        """
        sysctl = _locate(self._state_directory, self._sysctls)
        original = sysctl.recall()
        if original is None:
            return None
        name = f"net.mptcp.{sysctl.spelling.name}"
        try:
            changed = sysctl.restore(original)
        except OSError as e:
            raise PmError(
                f"{name} cannot be set back ({e.strerror})",
                "run `mptcp-pm restore` as root"
                if isinstance(e, PermissionError)
                else f"run `sysctl -w {name}={original}` on the host",
            ) from e
        return f"{name}={original}" if changed else None


@dataclass(frozen=True, slots=True)
class _Sysctl:
    """This namespace's sysctl (``file``), and the note (``note``) that keeps its original value."""

    spelling: Spelling
    file: Path
    note: Path

    def value(self) -> str:
        return self.file.read_text().strip()

    def switch(self, original: str) -> None:
        try:
            self.file.write_text(self.spelling.userspace)
        except OSError as e:
            self.note.unlink(missing_ok=True)
            raise SystemUnfit(
                f"net.mptcp.{self.spelling.name} is {original!r} and cannot be set ({e.strerror})",
                sysctl_remedy(self.spelling.setting),
            ) from e

    def restore(self, original: str) -> bool:
        """Whether it was changed. If somebody else changed the value meanwhile, their change stays."""
        changes = self.value() == self.spelling.userspace != original
        if changes:
            self.file.write_text(original)
        self.note.unlink(missing_ok=True)
        return changes

    def remember(self, original: str) -> None:
        directory = self.note.parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
            partial = self.note.with_suffix(".new")
            partial.write_text(json.dumps({"boot": _boot_id(), self.spelling.name: original}))
            partial.replace(self.note)
        except OSError as e:
            raise SystemUnfit(
                f"{directory} cannot be written ({e.strerror})", "give another with --state-directory"
            ) from e

    def recall(self) -> str | None:
        try:
            note = json.loads(self.note.read_text())
            value = note[self.spelling.name] if note["boot"] == _boot_id() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return value if isinstance(value, str) else None


def _boot_id() -> str:
    """Cookies of network namespaces begin anew at each boot."""
    return BOOT_ID.read_text().strip()


def _locate(state_directory: Path, sysctls: Path) -> _Sysctl:
    spelling = find_spelling(sysctls)
    if spelling is None:
        raise SystemUnfit(
            "the kernel does not support MPTCP path managers in user space",
            kernel_remedy(),
        )
    return _Sysctl(spelling, sysctls / spelling.name, namespace_file(state_directory, "path-manager"))
