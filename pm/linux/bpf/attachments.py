# SPDX-License-Identifier: GPL-2.0-only
"""Sock_ops programs in the kernel: one link per cgroup, the programs' maps, and their pins.

Links and maps are pinned where a bpffs is mounted, in ``BPFFS/mptcp-pm/<netns cookie>/``: what a
killed service leaves goes on working, and the next one takes it over. Cookies of network
namespaces, ids of cgroups and ids of policies never come again with another meaning while the
machine is up, so nothing that is found there can be misunderstood.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Self

from pm.errors import KernelRefused, SystemUnfit
from pm.linux.bpf import libbpf
from pm.linux.bpf.layouts import NETNS_COOKIE_PLACEHOLDER
from pm.linux.bpf.objects import PRIVILEGES, BpfObject
from pm.log import get_logger

SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, Linux 5.14

log = get_logger()


class Attachments:
    """Programs, links and maps of one network namespace. Made by ``open``."""

    link_prefix: ClassVar[str]
    """Of the names of pinned links: differs between the kinds of programs."""
    entry: ClassVar[str]
    """The function in the BPF C file, or what the names of several begin with (``entry_of``)."""

    def __init__(self, program: BpfObject, *, netns_cookie: int, pins: Path | None, log_file: Path) -> None:
        """``pins``: directory of our pins, None to do without."""
        self._program = program
        self._netns_cookie = netns_cookie
        self._pins = pins
        self._log_file = log_file
        self._maps: dict[str, int] = {}
        self._programs: dict[str, int] = {}
        self._links: dict[int, int] = {}
        self.attached: dict[int, str] = {}
        """Cgroup id -> program; "" for a link found pinned, whose program is not ours yet."""

    @classmethod
    def open(cls, program: BpfObject, *, bpffs: Path | None, log_file: Path) -> Self:
        """For the calling thread's network namespace, with what an earlier service left pinned.

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

    def entry_of(self, name: str) -> str:
        """The function in the BPF C file that a program is."""
        return self.entry

    def constants(self, name: str) -> Mapping[int, int]:
        """Placeholder -> value, beside the namespace's cookie, that make a program this one."""
        raise NotImplementedError

    # Attachments

    def attach(self, cgroup: Path, cgroup_id: int, name: str) -> None:
        """Attach a program to a cgroup. Raises KernelRefused; ENOENT where the cgroup is gone."""
        program = self._load(name)
        try:
            directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise KernelRefused(f"attach to {cgroup}", e.errno or errno.ENOENT) from e
        try:
            if os.fstat(directory).st_ino != cgroup_id:  # another one has its name by now
                raise KernelRefused(f"attach to {cgroup}", errno.ENOENT)
            link = libbpf.link_cgroup(program, directory)
        except KernelRefused as e:
            raise KernelRefused(f"attach to {cgroup}", e.errno, _refusal(e)) from e
        finally:
            os.close(directory)
        if self._pins:
            try:
                libbpf.pin(link, self._pin(cgroup_id))
            except KernelRefused:
                os.close(link)
                raise
        self._links[cgroup_id] = link
        self.attached[cgroup_id] = name

    def replace(self, cgroup_id: int, name: str) -> None:
        """Let another program take over on a cgroup, in one step. Raises KernelRefused."""
        libbpf.update_link(self._links[cgroup_id], self._load(name))
        self.attached[cgroup_id] = name

    def detach(self, cgroup_id: int) -> None:
        """Take our program off a cgroup; also for one that is gone."""
        if self._pins:
            self._pin(cgroup_id).unlink(missing_ok=True)
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

    def change(self, program: BpfObject | None, names: Iterable[str]) -> None:
        """Take programs from another compilation (None: the same) from now on, if all of ``names`` load.

        Raises SystemUnfit where the kernel's verifier refuses one: then nothing has changed.
        """
        former, before = self._program, set(self._programs)
        self._program = program or former
        try:
            # The verifier takes up to 0.3 s for one, and a processor of its own for each.
            with ThreadPoolExecutor(os.cpu_count()) as executor:
                for _ in executor.map(self._load, dict.fromkeys(names)):
                    pass
        except SystemUnfit:
            self._program = former
            self.unload(self._programs.keys() - before)
            raise

    def unload_unused(self, keep: Collection[str] = ()) -> None:
        """Let go of programs that are attached nowhere, but for those to ``keep``: loading takes time."""
        self.unload(self._programs.keys() - set(self.attached.values()) - set(keep))

    def unload(self, names: Iterable[str]) -> None:
        for name in names:
            os.close(self._programs.pop(name))

    # Opening and closing

    def close(self, *, keep: bool) -> None:
        """Detach everything and remove every pin; with ``keep``, leave both for the next start.

        Nothing stays without pins.
        """
        if self._pins and not keep:
            for cgroup_id in self._links:
                self._pin(cgroup_id).unlink(missing_ok=True)
            for name in self._maps:
                (self._pins / name).unlink(missing_ok=True)
            for directory in (self._pins, self._pins.parent):
                try:
                    directory.rmdir()
                except OSError:
                    break  # another network namespace has pins
        for fds in (self._links, self._programs, self._maps):
            for fd in fds.values():
                os.close(fd)
            fds.clear()
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
                self.attached[cgroup_id] = ""
            else:
                path.unlink()
                os.close(link)

    def _load(self, name: str) -> int:
        if name not in self._programs:
            constants = {NETNS_COOKIE_PLACEHOLDER: self._netns_cookie, **self.constants(name)}
            self._programs[name] = self._program.load(
                self.entry_of(name), maps=self._maps, constants=constants, log_file=self._log_file
            )
        return self._programs[name]

    def _pin(self, cgroup_id: int) -> Path:
        assert self._pins
        return self._pins / f"{self.link_prefix}{cgroup_id}"


def pin_directory(bpffs: Path, cookie: int) -> Path:
    """Of the pins of one network namespace."""
    return bpffs / "mptcp-pm" / str(cookie)


def netns_cookie() -> int:
    """Of the calling thread's network namespace; never used again while the machine is up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        try:
            return int.from_bytes(s.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)
        except OSError as e:
            raise SystemUnfit("this kernel has no network namespace cookies", "Linux 5.19 or newer") from e


def _refusal(error: KernelRefused) -> str:
    if error.errno == errno.EPERM:
        return (
            "a program attached here or above without BPF_F_ALLOW_MULTI lets in no other: "
            "`bpftool cgroup tree` shows it"
        )
    return error.reason
