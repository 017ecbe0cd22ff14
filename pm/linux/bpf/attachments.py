# SPDX-License-Identifier: GPL-2.0-only
"""Sock_ops programs in the kernel: one link per cgroup, the programs' maps, and their pins.

Links and maps are pinned where a bpffs is mounted, in ``BPFFS/mptcp-pm/<netns cookie>/``: what a
killed service leaves goes on working, and the next one takes it over. Cookies of network namespaces
and ids of cgroups are not reused until reboot, and a policy's id is computed from its name: nothing
that is found there can be misunderstood. Pins do not tell which program a link has; a service replaces
the programs of all links that it takes over.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

from pm.errors import KernelRefused, SystemUnfit
from pm.linux.bpf import libbpf
from pm.linux.bpf.layouts import NETNS_COOKIE_PLACEHOLDER
from pm.linux.bpf.objects import PRIVILEGES, BpfObject
from pm.log import get_logger

SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, Linux 5.14

log = get_logger()

Key = TypeVar("Key", bound=Hashable)


class Attachments(Generic[Key]):
    """Programs, links and maps of one network namespace; made by ``open``.

    A ``Key`` is what makes two programs the same.
    """

    link_prefix: ClassVar[str]
    """What the names of pinned links begin with; it differs between the kinds of programs."""
    entry: ClassVar[str]
    """The function in the BPF C file, or what the names of several begin with (``entry_of``)."""

    def __init__(self, program: BpfObject, *, netns_cookie: int, pins: Path | None, log_file: Path) -> None:
        """``pins`` is the directory of our pins, None to do without."""
        self._program = program
        self._netns_cookie = netns_cookie
        self._pins = pins
        self._log_file = log_file
        self._maps: dict[str, int] = {}
        self._programs: dict[Key, int] = {}
        self._links: dict[int, int] = {}
        self.attached: dict[int, Key | None] = {}
        """Cgroup id -> program; None for a link that was found pinned and has another service's program."""

    @classmethod
    def open(cls, program: BpfObject, *, bpffs: Path | None, log_file: Path) -> Self:
        """Create the maps of the calling thread's network namespace, or take over what is pinned.

        Raises SystemUnfit without the privileges, or on a kernel without network namespace cookies.
        """
        cookie = netns_cookie()
        pins = pin_directory(bpffs, cookie) if bpffs else None
        try:
            if pins:
                pins.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            log.warning("pins_impossible", directory=str(pins), error=e.strerror)
            pins = None
        self = cls(program, netns_cookie=cookie, pins=pins, log_file=log_file)
        try:
            self._open_maps()
            self._open_links()
        except KernelRefused as e:
            self.close(keep=True)
            raise SystemUnfit(str(e), PRIVILEGES) from e
        return self

    def entry_of(self, key: Key) -> str:
        """The function in the BPF C file that a program is."""
        return self.entry

    def constants(self, key: Key) -> Mapping[int, int]:
        """Placeholder -> value, beside the namespace's cookie, that make a program this one."""
        raise NotImplementedError

    # Attachments

    def attach(self, cgroup: Path, cgroup_id: int, key: Key) -> None:
        """Attach a program to a cgroup. Raises KernelRefused; ENOENT where the cgroup is gone."""
        program = self._load(key)
        try:
            directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise KernelRefused(f"attach to {cgroup}", e.errno or errno.ENOENT) from e
        try:
            if os.fstat(directory).st_ino != cgroup_id:  # another cgroup has its name by now
                raise KernelRefused(f"attach to {cgroup}", errno.ENOENT)
            link = libbpf.link_cgroup(program, directory)
        except KernelRefused as e:
            raise KernelRefused(f"attach to {cgroup}", e.errno, _refusal(e)) from e
        finally:
            os.close(directory)
        if self._pins:
            try:
                libbpf.pin(link, self._pin(self._pins, cgroup_id))
            except KernelRefused:
                os.close(link)
                raise
        self._links[cgroup_id] = link
        self.attached[cgroup_id] = key

    def replace(self, cgroup_id: int, key: Key) -> None:
        """Let another program take over on a cgroup, in one step. Raises KernelRefused."""
        libbpf.update_link(self._links[cgroup_id], self._load(key))
        self.attached[cgroup_id] = key

    def detach(self, cgroup_id: int) -> None:
        """Take our program off a cgroup; also for one that is gone."""
        if self._pins:
            self._pin(self._pins, cgroup_id).unlink(missing_ok=True)
        os.close(self._links.pop(cgroup_id))
        del self.attached[cgroup_id]

    def fill(self, name: str, wanted: Sequence[Mapping[bytes, bytes]]) -> None:
        """Make a map hold all these entries and no others. Raises KernelRefused."""
        fd, (_, spec) = self._maps[name], self._program.maps[name]
        for entries in wanted:
            for key, value in entries.items():
                libbpf.update(fd, key, value)
        for key in list(libbpf.keys(fd, spec.key_size)):
            if not any(key in entries for entries in wanted):
                libbpf.delete(fd, key)

    def change(self, program: BpfObject, keys: Iterable[Key]) -> None:
        """Take programs from this compilation from now on, if all of ``keys`` load.

        Raises SystemUnfit where the kernel's verifier refuses one: then nothing has changed.
        """
        former, loaded = self._program, set(self._programs)
        self._program = program
        try:
            # The verifier takes up to 0.3 s for one, and a processor of its own for each.
            with ThreadPoolExecutor(os.cpu_count()) as executor:
                for _ in executor.map(self._load, dict.fromkeys(keys)):
                    pass
        except SystemUnfit:
            self._program = former
            self.unload(self._programs.keys() - loaded)
            raise

    def unload_unused(self, keep: Collection[Key] = ()) -> None:
        """Unload programs that are attached nowhere, except those to ``keep``: loading takes time."""
        self.unload(self._programs.keys() - set(self.attached.values()) - set(keep))

    def unload(self, keys: Iterable[Key]) -> None:
        """Close programs; those that are attached stay in the kernel with their links."""
        for key in keys:
            os.close(self._programs.pop(key))

    # Opening and closing

    def close(self, *, keep: bool) -> None:
        """Detach everything and remove every pin; with ``keep``, leave both for the next start.

        Without pins nothing can stay.
        """
        if self._pins and not keep:
            for cgroup_id in self._links:
                self._pin(self._pins, cgroup_id).unlink(missing_ok=True)
            for name in self._maps:
                (self._pins / name).unlink(missing_ok=True)
            for directory in (self._pins, self._pins.parent):
                try:
                    directory.rmdir()
                except OSError:
                    break  # other programs or another network namespace have pins
        for fd in (*self._links.values(), *self._programs.values(), *self._maps.values()):
            os.close(fd)
        self._links.clear()
        self._programs.clear()
        self._maps.clear()
        self.attached.clear()

    def _open_maps(self) -> None:
        """The pinned maps, where they are as this program wants them; else new ones."""
        for name, (_, spec) in self._program.maps.items():
            self._maps[name] = self._adopt_map(name, spec) or self._create_map(name, spec)

    def _adopt_map(self, name: str, spec: libbpf.MapSpec) -> int | None:
        if not self._pins or not (self._pins / name).exists():
            return None
        fd = libbpf.open_pin(self._pins / name)
        if libbpf.map_spec(fd) == spec:
            return fd
        os.close(fd)
        (self._pins / name).unlink()
        return None

    def _create_map(self, name: str, spec: libbpf.MapSpec) -> int:
        fd = libbpf.create_map(name, spec)
        if self._pins:
            libbpf.pin(fd, self._pins / name)
        return fd

    def _open_links(self) -> None:
        for path in self._pins.glob(f"{self.link_prefix}*") if self._pins else ():
            link = libbpf.open_pin(path)
            cgroup_id = libbpf.link_info(link).cgroup_id
            if cgroup_id:
                self._links[cgroup_id] = link
                self.attached[cgroup_id] = None
            else:
                path.unlink()
                os.close(link)

    def _load(self, key: Key) -> int:
        if key not in self._programs:
            constants = {NETNS_COOKIE_PLACEHOLDER: self._netns_cookie, **self.constants(key)}
            self._programs[key] = self._program.load(
                self.entry_of(key), maps=self._maps, constants=constants, log_file=self._log_file
            )
        return self._programs[key]

    def _pin(self, pins: Path, cgroup_id: int) -> Path:
        return pins / f"{self.link_prefix}{cgroup_id}"


def pin_directory(bpffs: Path, cookie: int) -> Path:
    """The directory with the pins of a network namespace."""
    return bpffs / "mptcp-pm" / str(cookie)


def netns_cookie() -> int:
    """SO_NETNS_COOKIE of the calling thread's network namespace, not reused until reboot.

    Raises SystemUnfit where the kernel does not have it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        try:
            return int.from_bytes(s.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)
        except OSError as e:
            raise SystemUnfit(
                "this kernel has no network namespace cookies", "boot Linux 5.19 or newer"
            ) from e


def _refusal(error: KernelRefused) -> str:
    if error.errno == errno.EPERM:
        return (
            "a program on this cgroup or an ancestor was attached without BPF_F_ALLOW_MULTI and "
            "excludes others: `bpftool cgroup tree` shows it"
        )
    return error.reason
