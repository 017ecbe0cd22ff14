# SPDX-License-Identifier: Apache-2.0
"""Pins of services that are dead: whose they are, and removing them.

A service holds the lock of its directory (``pm.linux.host.instance``), and pins a sentinel there: a link of a
program that lets everything pass, to its network namespace. The kernel takes the link off the namespace when
that ends, which no other sign shows across pid and mount namespaces.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pm.errors import KernelRefused, PmError, SystemUnfit
from pm.linux.bpf import libbpf
from pm.linux.bpf.pins import unpin_all
from pm.linux.host.instance import lock_directory
from pm.log import get_logger
from pm.upkeep import Change

SENTINEL = "netns"
KEEP = "keep"
# include/uapi/linux/bpf.h
_PROG_TYPE_SK_LOOKUP = 30
_ATTACH_SK_LOOKUP = 36
_LINK_TYPE_NETNS = 5
_PASS = struct.pack("=BBhi", 0xB7, 0, 0, 1) + struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = SK_PASS; exit

log = get_logger()


class _NetnsLinkInfo(ctypes.Structure):
    """The start of struct bpf_link_info, of a link to a network namespace."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("netns_ino", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
    ]


class Sentinel:
    """A context in which the directory of our pins tells whose they are, and whether they are to stay."""

    def __init__(self, directory: Path, keep: Callable[[], bool]) -> None:
        """``keep``: whether pins stay when the service ends (``on_exit``). Blocks: enter it in a thread."""
        self._directory = directory
        self._keep = keep

    def __enter__(self) -> Self:
        for swept in sweep(self._directory.parent):
            log.info("pins_swept", directory=str(swept), reason="its network namespace has ended")
        self._mark()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._keep():
            self._mark()
        else:
            for name in (SENTINEL, KEEP):
                (self._directory / name).unlink(missing_ok=True)

    async def look(self) -> dict[str, Change]:
        """Set the marks again where somebody removed them (``pm.upkeep.Kept``); nothing to report."""
        await asyncio.to_thread(self._mark)
        return {}

    def _mark(self) -> None:
        """Without privileges or a bpffs there is no mark, and nothing that would need one."""
        with suppress(OSError, KernelRefused, SystemUnfit):
            if not (self._directory / SENTINEL).exists():
                _pin_sentinel(self._directory / SENTINEL)
        mark = self._directory / KEEP
        with suppress(OSError):
            if not self._keep():
                mark.unlink(missing_ok=True)
            elif not mark.is_symlink():
                mark.symlink_to("on_exit")  # to nothing: a bpffs has pins, directories and symbolic links


def sweep(pins: Path) -> list[Path]:
    """Remove the pins of services that are dead and whose network namespace has ended.

    ``pins`` is the directory with a directory per namespace. Returns the directories that were removed. Those
    without a sentinel are left alone, and so is what a dead service left in a living namespace: its programs
    are meant to work on.
    """
    with suppress(OSError):
        return [directory for directory in pins.iterdir() if _sweep(directory, _has_ended)]
    return []


def remove_left(directory: Path) -> bool:
    """Remove the pins of a namespace whose service is dead and was not told to keep them. Whether any were.

    For a service that does not come back (``mptcp-pm restore``). Raises PmError without permission.
    """
    if directory.exists() and not os.access(directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise PmError(f"{directory} may not be read or changed", "run `mptcp-pm restore` as root")
    return _sweep(directory, lambda directory: not (directory / KEEP).is_symlink())


def _sweep(directory: Path, is_wanted: Callable[[Path], bool]) -> bool:
    try:
        lock = lock_directory(directory)
    except OSError:
        return False
    if lock is None:
        return False
    try:
        if not is_wanted(directory):
            return False
        unpin_all(directory)
        directory.rmdir()
    except OSError as e:
        log.warning("pins_not_swept", directory=str(directory), error=e.strerror)
        return False
    finally:
        os.close(lock)
    return True


def _has_ended(directory: Path) -> bool:
    """Whether the directory's sentinel has lost its network namespace."""
    try:
        link = libbpf.open_pin(directory / SENTINEL)
    except KernelRefused:
        return False
    info = _NetnsLinkInfo()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    try:
        result = libbpf.library().bpf_obj_get_info_by_fd(link, ctypes.byref(info), ctypes.byref(size))
    finally:
        os.close(link)
    return bool(result == 0 and info.type == _LINK_TYPE_NETNS and info.netns_ino == 0)


def _pin_sentinel(path: Path) -> None:
    """Raises KernelRefused, OSError."""
    program = libbpf.load_program(SENTINEL, _PROG_TYPE_SK_LOOKUP, _ATTACH_SK_LOOKUP, _PASS)
    try:
        namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            link = libbpf.create_link(program, namespace, _ATTACH_SK_LOOKUP, "attach to network namespace")
        finally:
            os.close(namespace)
        try:
            libbpf.pin(link, path)
        finally:
            os.close(link)
    finally:
        os.close(program)
