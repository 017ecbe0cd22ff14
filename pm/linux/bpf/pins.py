# SPDX-License-Identifier: Apache-2.0
"""What keeps maps and links in the kernel without a process: their names on a bpffs.

All pins of a network namespace are in ``BPFFS/mptcp-pm/<netns cookie>/``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from pm.errors import KernelRefused
from pm.linux.bpf import libbpf
from pm.log import get_logger

log = get_logger()


def pin_directory(bpffs: Path, cookie: int) -> Path:
    """The directory with the pins of a network namespace."""
    return bpffs / "mptcp-pm" / str(cookie)


def unpin_all(directory: Path) -> bool:
    """Remove every pin of a directory: links that nothing else holds are detached. Whether there was one."""
    found = False
    for pin in directory.glob("*"):
        pin.unlink(missing_ok=True)
        found = True
    return found


class Pins:
    """The directory with our pins; made by ``open``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def open(cls, directory: Path) -> Self | None:
        """Make the directory. None, and a warning, where that is impossible."""
        self = cls(directory)
        try:
            self._make_directory()
        except KernelRefused as e:
            log.warning("pins_impossible", directory=str(directory), error=str(e))
            return None
        return self

    def pin(self, fd: int, name: str) -> None:
        """Raises KernelRefused."""
        libbpf.pin(fd, self.directory / name)

    def unpin(self, name: str) -> None:
        (self.directory / name).unlink(missing_ok=True)

    def find(self, prefix: str) -> list[str]:
        """Names of pins that begin with ``prefix``."""
        return [path.name for path in self.directory.glob(f"{prefix}*")]

    def adopt(self, name: str) -> int | None:
        """A descriptor of what is pinned; None where nothing is. Raises KernelRefused."""
        path = self.directory / name
        return libbpf.open_pin(path) if path.exists() else None

    def missing(self, names: Iterable[str]) -> set[str]:
        """Those of ``names`` that are not pinned."""
        try:
            return set(names) - set(os.listdir(self.directory))
        except OSError:
            return set(names)

    def restore(self, descriptors: Mapping[str, int]) -> None:
        """Pin these (name -> descriptor), where they are missing. Raises KernelRefused."""
        self._make_directory()
        for name in self.missing(descriptors):
            self.pin(descriptors[name], name)

    def remove(self, names: Iterable[str]) -> None:
        """Remove pins, and the directories that are empty then."""
        for name in names:
            self.unpin(name)
        for directory in (self.directory, self.directory.parent):
            try:
                directory.rmdir()
            except OSError:
                break  # other programs or another network namespace have pins

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            raise KernelRefused(f"make {self.directory}", e.errno or 0) from e
