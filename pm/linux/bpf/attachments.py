# SPDX-License-Identifier: Apache-2.0
"""Sock_ops programs in the kernel: one link per cgroup, the programs' maps, and their pins.

Links and maps are pinned where a bpffs is mounted, in ``BPFFS/mptcp-pm/<netns cookie>/``: what a
killed service leaves goes on working, and the next one takes it over. A pin that cannot be made, or
that somebody removes, costs that alone: ``missing_pins`` has it. Cookies of network namespaces
and ids of cgroups are not reused until reboot, and a policy's id is computed from its name: nothing
that is found there can be misunderstood. Pins do not tell which program a link has; a service replaces
the programs of all links that it takes over.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

from pm.errors import KernelRefused, SystemUnfit
from pm.linux.bpf import libbpf
from pm.linux.bpf.cgroup_links import link_to
from pm.linux.bpf.layouts import NETNS_COOKIE_PLACEHOLDER
from pm.linux.bpf.objects import PRIVILEGES, SOURCES, BpfObject
from pm.linux.bpf.pins import Pins, pin_directory
from pm.linux.bpf.sweep import sweep
from pm.linux.host.netns import netns_cookie

Key = TypeVar("Key", bound=Hashable)


class Attachments(Generic[Key]):
    """Programs, links and maps of one network namespace; made by ``open``.

    A ``Key`` is what makes two programs the same.
    """

    link_prefix: ClassVar[str]
    """What the names of pinned links begin with; it differs between the kinds of programs."""
    entry: ClassVar[str]
    """The function in the BPF C file, or what the names of several begin with (``entry_of``)."""
    layout: ClassVar[Sequence[str]]
    """The files of bpf_pm that say what the maps hold."""

    def __init__(self, program: BpfObject, *, netns_cookie: int, pins: Pins | None, log_file: Path) -> None:
        """Without ``pins`` everything ends with the process."""
        self._program = program
        self._netns_cookie = netns_cookie
        self._pins = pins
        self._log_file = log_file
        self._maps: dict[str, int] = {}
        self._programs: dict[Key, int] = {}
        self._links: dict[int, int] = {}
        self._program_ids: dict[int, int] = {}
        self.away: Collection[int] = ()
        """Cgroups whose program was ``lost`` when it was last asked."""
        self.attached: dict[int, Key | None] = {}
        """Cgroup id -> program; None for a link that was found pinned and has another service's program."""

    @classmethod
    def open(cls, program: BpfObject, *, bpffs: Path | None, log_file: Path) -> Self:
        """Create the maps of the calling thread's network namespace, or take over what is pinned.

        Raises SystemUnfit without the privileges, or on a kernel without network namespace cookies.
        """
        cookie = netns_cookie()
        pins = Pins.open(pin_directory(bpffs, cookie)) if bpffs else None
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
        """Attach a program to a cgroup. Raises CgroupGone, KernelRefused."""
        self._hold(cgroup_id, self._link(cgroup, cgroup_id, key))
        self.attached[cgroup_id] = key

    def replace(self, cgroup_id: int, key: Key) -> None:
        """Let another program take over on a cgroup, in one step. Raises KernelRefused."""
        link = self._links[cgroup_id]
        libbpf.update_link(link, self._load(key))
        self._program_ids[cgroup_id] = libbpf.link_info(link).program_id
        self.attached[cgroup_id] = key

    def detach(self, cgroup_id: int) -> None:
        """Take our program off a cgroup; also for one that is gone."""
        if self._pins:
            self._pins.unpin(self._link_name(cgroup_id))
        os.close(self._links.pop(cgroup_id))
        self._program_ids.pop(cgroup_id, None)
        del self.attached[cgroup_id]

    # What others may have changed

    def lost(self) -> dict[int, str]:
        """Cgroup id -> what became of the program there; also for cgroups that are gone."""
        found = {}
        for cgroup_id, program_id in self._program_ids.items():
            info = libbpf.link_info(self._links[cgroup_id])
            if info.cgroup_id != cgroup_id:
                found[cgroup_id] = "was detached"
            elif info.program_id != program_id:
                found[cgroup_id] = f"was replaced by the program {info.program_id}"
        self.away = found.keys()
        return found

    def reattach(self, cgroup: Path, cgroup_id: int) -> None:
        """Attach the program of a cgroup that is ``lost`` again. Raises CgroupGone, KernelRefused."""
        key = self.attached[cgroup_id]
        if key is None:
            return
        if libbpf.link_info(self._links[cgroup_id]).cgroup_id == cgroup_id:
            self.replace(cgroup_id, key)
            return
        link = self._link(cgroup, cgroup_id, key)
        os.close(self._links[cgroup_id])
        if self._pins:
            self._pins.unpin(self._link_name(cgroup_id))
        self._hold(cgroup_id, link)

    def missing_pins(self) -> set[str]:
        """Names of our pins that are not there."""
        return self._pins.missing(self._pinned()) if self._pins else set()

    def restore_pins(self) -> None:
        """Make ``missing_pins`` again. Raises KernelRefused."""
        if self._pins:
            self._pins.restore(self._pinned())

    # Maps and programs

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
            self._pins.remove(self._pinned())
        for fd in (*self._links.values(), *self._programs.values(), *self._maps.values()):
            os.close(fd)
        self._links.clear()
        self._program_ids.clear()
        self._programs.clear()
        self._maps.clear()
        self.attached.clear()

    def _open_maps(self) -> None:
        """The pinned maps, where they are as this program wants them; else new ones."""
        layout = _digest(self.layout)
        for name, (_, spec) in self._program.maps.items():
            in_kernel = f"{name[:8]}_{layout}"  # BPF_OBJ_NAME_LEN is 16, the final NUL included
            adopted = self._adopt_map(name, in_kernel, spec)
            self._maps[name] = adopted or self._create_map(name, in_kernel, spec)

    def _adopt_map(self, name: str, in_kernel: str, spec: libbpf.MapSpec) -> int | None:
        """What is pinned, if it has the same sizes and, as its name tells, the same layout."""
        fd = self._pins.adopt(name) if self._pins else None
        if self._pins is None or fd is None or libbpf.describe_map(fd) == (in_kernel, spec):
            return fd
        os.close(fd)
        self._pins.unpin(name)
        return None

    def _create_map(self, name: str, in_kernel: str, spec: libbpf.MapSpec) -> int:
        fd = libbpf.create_map(in_kernel, spec)
        if self._pins:
            self._pins.pin(fd, name)
        return fd

    def _open_links(self) -> None:
        if self._pins is None:
            return
        for name in self._pins.find(self.link_prefix):
            link = libbpf.open_pin(self._pins.directory / name)
            cgroup_id = libbpf.link_info(link).cgroup_id
            if cgroup_id:
                self._links[cgroup_id] = link
                self.attached[cgroup_id] = None
            else:
                self._pins.unpin(name)
                os.close(link)

    def _link(self, cgroup: Path, cgroup_id: int, key: Key) -> int:
        try:
            return link_to(cgroup, cgroup_id, self._load(key))
        except KernelRefused as e:
            # A cgroup takes 64 programs: those of dead services may have taken the places.
            if e.errno == errno.E2BIG and self._pins and sweep(self._pins.directory.parent):
                return link_to(cgroup, cgroup_id, self._load(key))
            raise

    def _hold(self, cgroup_id: int, link: int) -> None:
        self._links[cgroup_id] = link
        self._program_ids[cgroup_id] = libbpf.link_info(link).program_id
        if self._pins:
            with suppress(KernelRefused):  # `missing_pins` has it then
                self._pins.pin(link, self._link_name(cgroup_id))

    def _load(self, key: Key) -> int:
        if key not in self._programs:
            constants = {NETNS_COOKIE_PLACEHOLDER: self._netns_cookie, **self.constants(key)}
            self._programs[key] = self._program.load(
                self.entry_of(key), maps=self._maps, constants=constants, log_file=self._log_file
            )
        return self._programs[key]

    def _pinned(self) -> dict[str, int]:
        """Name -> descriptor of all that is pinned."""
        return self._maps | {self._link_name(cgroup_id): fd for cgroup_id, fd in self._links.items()}

    def _link_name(self, cgroup_id: int) -> str:
        return f"{self.link_prefix}{cgroup_id}"


def _digest(files: Iterable[str]) -> str:
    """Six hexadecimal digits that change with the content of files in bpf_pm."""
    content = b"".join((SOURCES / file).read_bytes() for file in files)
    return hashlib.sha256(content).hexdigest()[:6]
